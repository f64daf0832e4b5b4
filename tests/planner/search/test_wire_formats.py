"""Which wire formats a plan may have: those that the deployment lists, by kernels that send them, within the budget."""

from __future__ import annotations

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.formats import warnings
from commplan.planner.search.graph import ANY
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner
from commplan.planner.strategies import strategies
from commplan.planner.strategy.errors import InputError, NoLegalPlanError
from commplan.planner.strategy.ops import Op
from commplan.planner.strategy.wire_formats import WIRE_ERRORS

NAME = "quantized_all_reduce"
ON_AMD = ("hardware=mi300x-8", "parallelism.tp=8", "executor=plan_only")
ON_H200 = ("executor=plan_only",)
ALL = "numerics.wire_formats=[int8, int6, int4, fp8_e4m3]"


def planner(*overrides: str, mode: str = "prefill") -> ModePlanner:
    return ModePlanner(load_setup("qwen3-32b-h200-tp2", ("numerics.loosest=quantized", *overrides)), mode)


def formats(found: ModePlanner, tokens: int) -> set[str | None]:
    """Those by which the sums of the best plan travel."""
    return {edge.op.wire_name for edge in found.best(tokens).edges if edge.op.kind.sums}


NONE_COMPOSED = (
    "numerics.forbid=[{op: quantized_all_reduce, impl: composed}, {op: quantized_all_reduce, impl: composed_norm}, "
    "{op: int8_all_reduce}]"
)
"""What servers send alone."""


def reasons(found: ModePlanner) -> dict[str, str]:
    """Why ops of the name may not stand after the first attention, by format and impl."""
    before = next(iter(found.graph().layers[1].boundaries["attn_out"]))
    rejected = found.builder.rejections("attn_out", 1, before)
    return {f"{r.op.wire_name} {r.op.impl}": r.reason for r in rejected if r.op.name == NAME and not r.op.residual}


def test_without_a_word_only_int8_travels_and_the_others_are_refused_by_the_name_of_the_field():
    refused = reasons(planner(*ON_AMD))
    assert "int8 quick_reduce" not in refused
    for wire, word in (("int6", "INT6"), ("int4", "INT4"), ("fp8_e4m3", "FP8")):
        reason = f"travels in {word}, and numerics.wire_formats lists int8: {wire} is not among them"
        assert refused[f"{wire} quick_reduce"] == reason


@pytest.mark.parametrize(("listed", "chosen"), [("[int8]", "int8"), ("[int8, int6]", "int6"), ("[int4]", "int4")])
def test_of_the_formats_that_are_listed_the_fewest_bits_win_a_long_prefill(listed, chosen):
    assert formats(planner(*ON_AMD, NONE_COMPOSED, f"numerics.wire_formats={listed}"), 8192) == {chosen, None}


def test_no_format_is_a_list_too_and_then_no_sum_is_quantised():
    empty = planner(*ON_AMD, "numerics.wire_formats=[]")
    assert not any(edge.op.kind.is_quantized for edge in empty.graph().edges)
    assert "lists none" in reasons(empty)["int8 quick_reduce"]
    assert warnings(empty.setup) == [
        "no sum may travel in fewer bits: numerics.wire_formats is empty, although numerics.loosest is quantized"
    ]


PCIE = ("hardware=l40s-8", "parallelism.tp=4")


def test_formats_of_which_nothing_sends_any_here_are_refused_with_the_reason_and_with_those_that_are_sent():
    with pytest.raises(NoLegalPlanError) as refused:
        planner(*PCIE, "numerics.wire_formats=[int4]").best(4096)
    error = refused.value
    assert (error.field, error.value) == ("numerics.wire_formats", ["int4"])
    assert "int4: no impl of executor transformers sends it on l40s-8" in error.message
    assert "(int8, int6, fp8_e4m3, int4_spikes), or leave the field out" in error.message
    a100 = ("executor=plan_only", "hardware=a100-8", "numerics.wire_formats=[fp8_e4m3]")
    with pytest.raises(NoLegalPlanError, match=r"compute\.fp8_tflops of a100-8 says of none"):
        planner(*a100).best(4096)


@pytest.mark.parametrize("wire", ["int8", "int6", "fp8_e4m3", "int4_spikes"])
def test_each_format_that_a_refusal_names_instead_is_sent(wire):
    found = planner(*PCIE, f"numerics.wire_formats=[{wire}]")
    assert any(edge.op.wire is not None and edge.op.wire.name == wire for edge in found.graph().edges)


def test_one_that_nothing_sends_beside_one_that_is_sent_is_said_and_stands_among_the_refused_ops():
    found = planner(*PCIE, "numerics.wire_formats=[int8, int4]")
    why = "no impl of executor transformers sends it on l40s-8"
    assert warnings(found.setup) == [f"no sum travels in int4, which numerics.wire_formats lists: {why}"]
    assert reasons(found)["int4 None"] == why
    silent = planner(*PCIE)
    assert warnings(silent.setup) == [] and "int4 None" not in reasons(silent)


def test_a_list_for_other_executors_does_not_stop_one_that_quantises_nothing():
    found = planner("executor=vllm", "numerics.wire_formats=[int8, fp8_e4m3]")
    assert found.best(4096)
    told = warnings(found.setup)
    assert [warning.partition(",")[0] for warning in told] == ["no sum travels in int8", "no sum travels in fp8_e4m3"]
    assert all("vLLM 0.33 quantises no sum on NVIDIA" in warning for warning in told)


def test_a_list_is_spoken_of_only_where_sums_may_be_quantised():
    for given in ("numerics.loosest=reordered", "parallelism.tp=1"):
        found = planner(*PCIE, "numerics.wire_formats=[int4]", given)
        assert warnings(found.setup) == [] and found.best(64)


def test_a_format_that_there_is_not_is_refused_by_its_place():
    with pytest.raises(InputError) as refused:
        planner("numerics.wire_formats=[int8, int7]")
    assert refused.value.field == "numerics.wire_formats[1]"
    assert "'int6'" in refused.value.message


def test_kernels_after_which_ranks_differ_are_legal_only_where_the_deployment_says_so():
    listed = (*ON_H200, ALL)
    assert "numerics.ranks_may_differ is false" in reasons(planner(*listed))["fp8_e4m3 flashinfer_fp8"]
    allowed = planner(*listed, "numerics.ranks_may_differ=true")
    assert "fp8_e4m3 flashinfer_fp8" not in reasons(allowed)
    assert "flashinfer_fp8" in {edge.op.impl for edge in allowed.graph().edges}


def test_a_budget_counts_the_error_of_the_format():
    """Between one sum in INT6 and one in INT8 there is room for the latter alone."""
    bits = "numerics.wire_formats=[int6]", "numerics.pin=[{op: quantized_all_reduce, boundary: mlp_out, layers: 3}]"
    bits = *bits, NONE_COMPOSED
    error = WIRE_ERRORS["int6", "32", "two_shot"].at(8)
    assert formats(planner(*ON_AMD, *bits, f"numerics.error_budget={error * 1.01}"), 8192) == {"int6", None}
    with pytest.raises(NoLegalPlanError, match="above the budget"):
        planner(*ON_AMD, *bits, f"numerics.error_budget={error * 0.99}").best(8192)


def test_rows_that_a_group_does_not_divide_have_no_such_sum():
    odd = planner(*ON_AMD, "model.hidden_size=5136")
    assert "needs rows of a multiple of 32" in reasons(odd)["int8 quick_reduce"]


def test_by_our_own_kernels_what_is_not_listed_is_refused_by_the_name_of_the_field():
    found = reasons(planner("hardware=l40s-8"))
    refused = {of: why for of, why in found.items() if of.endswith(" composed_norm")}
    assert set(refused) == {f"{wire} composed_norm" for wire in ("int6", "int4_spikes", "fp8_e4m3")}
    assert all("numerics.wire_formats lists int8" in reason for reason in refused.values())


def test_kernels_are_offered_on_the_devices_and_links_that_they_are_for():
    def impls(*overrides: str) -> set[str | None]:
        found = planner(*overrides, ALL, "numerics.ranks_may_differ=true")
        offered = found.builder.offers.candidates("attn_out", tuple(strategies().values()), ANY)
        return {op.impl for op, why in offered if why is None}

    amd, h200 = impls(*ON_AMD), impls(*ON_H200)
    assert {"quick_reduce", "aiter", "aiter_fused"} <= amd
    assert not amd & {"flashinfer_fp8", "trtllm_low_precision"}
    assert "flashinfer_fp8" in h200
    assert not h200 & {"quick_reduce", "aiter", "trtllm_low_precision"}
    over_pcie = ("executor=plan_only", "hardware=rtx-pro-6000-8", "hardware.links.intra_node.peer_access=true")
    for tp in (2, 4):
        found = impls(*over_pcie, f"parallelism.tp={tp}")
        assert "trtllm_low_precision" in found and "flashinfer_fp8" not in found
        assert {"flashinfer_pcie_ipc", "pcie_one_shot"} <= found
        assert "custom_one_shot" in found or tp > 2  # a server's kernel joins two of them, not more
    no_access = impls("executor=plan_only", "hardware=rtx-4090-8", "parallelism.tp=4")
    assert not (no_access | h200) & {"flashinfer_pcie_ipc", "pcie_one_shot"}


def test_a_kernel_for_some_numbers_of_ranks_is_refused_over_others():
    executor = load_setup("qwen3-32b-h200-tp2", ON_H200).executor.can
    op = Op(NAME, algorithm="two_shot", wire_name="int8", scale_group="32", impl="quick_reduce")
    sizes = {size: executor.impl_refusal("mlp_out", op, "rccl", "bf16", size, 5120) for size in (2, 4, 6, 8)}
    assert [size for size, why in sizes.items() if why is None] == [2, 4, 8]
    assert sizes[6] == "quick_reduce runs over 2, 4 or 8 ranks, and this group has 6"


def test_devices_that_do_not_compute_in_fp8_send_none():
    a100 = planner("executor=plan_only", "hardware=a100-8", ALL, "numerics.ranks_may_differ=true")
    assert "compute.fp8_tflops of a100-8" in reasons(a100)["fp8_e4m3 flashinfer_fp8"]


def test_the_stock_server_on_amd_sums_by_aiter_up_to_its_limit():
    server = StockPlanner(planner(*ON_AMD))
    impls = {
        tokens: {e.op.impl for e in server.default(tokens).plan.edges if e.op.kind.sums} for tokens in (1, 1638, 1639)
    }
    assert impls == {1: {"aiter"}, 1638: {"aiter"}, 1639: {None}}
    # Launched eagerly a kernel costs the host a launch, as a plan's kernels do, and no call of the library.
    for pricer in (server.server.pricer, server.planner.pricer):
        assert pricer.host.call_us("aiter") == pricer.host.launch_us < pricer.host.call_us("rccl")


def test_a_flag_of_the_server_in_a_format_that_is_not_listed_is_no_rival():
    ascend = ("executor=sglang", "hardware=ascend-a2-8-313t")
    names = {}
    for listed in ("[int8]", "[]"):
        found = StockPlanner(planner(*ascend, f"numerics.wire_formats={listed}"))
        names[listed] = {step.name for step in found._flagged(4096)}
    assert "--enable-quant-communications" in names["[int8]"] - names["[]"]


def test_what_is_said_by_default_is_no_part_of_the_fingerprint():
    plain, said = (load_setup("qwen3-32b-h200-tp2", given) for given in ((), ("numerics.wire_formats=[int8]",)))
    other = load_setup("qwen3-32b-h200-tp2", ("numerics.wire_formats=[int8, int6]",))
    dumped = [setup.deployment.model_dump(mode="json") for setup in (plain, said, other)]
    assert dumped[0] == dumped[1] != dumped[2]
