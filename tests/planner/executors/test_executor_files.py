"""An executor's file says nothing that cannot be, and the planner keeps to every limit that stands there."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.executors import Executor, Impl, load_executor
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.executor_file import executor_path
from commplan.planner.strategy.ops import Op
from commplan.planner.strategy.vendors import BACKENDS, BackendRecord
from commplan.planner.strategy.yaml_file import read_mapping

KERNELS = "commplan_triton"


def changed(*path: str, to: Any) -> dict[str, Any]:
    """The file of the transformers executor with one value set."""
    data = copy.deepcopy(read_mapping(executor_path("transformers")))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return data


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (changed("ops", "al_reduce", to={"impls": ["nccl"]}), "ops", "did you mean 'all_reduce'?"),
        (changed("ops", "all_reduce", to={"impls": ["ncl"]}), "ops.all_reduce.impls", "did you mean 'nccl'?"),
        (changed("absent", to={"al_gather": "x"}), "refusals", "did you mean 'all_gather'?"),
        (changed("refusals", to=[{"reason": "x"}]), "refusals[0]", "should name an op, impls or algorithms"),
        (changed("refusals", to=[{"impls": ["ncl"], "reason": "x"}]), "refusals[0].impls", "did you mean 'nccl'?"),
        (
            changed("ops", "reduce_scatter_all_gather", to={"impls": [KERNELS]}),
            "ops.reduce_scatter_all_gather.impls",
            "the record of reduce_scatter_all_gather has no such kernel",
        ),
        (
            changed("ops", "all_gather", to={"impls": [f"{KERNELS}_norm"]}),
            "ops.all_gather.impls",
            "the record of all_gather has no such kernel",
        ),
        (
            changed("kernels", "wires", to={}),
            "kernels.wires.int8.quantize",
            "is missing: int8_all_reduce takes this step",
        ),
        (
            changed("impls", "one_more", to={"vendors": ["nvidia"], "kind": "one_kernel"}),
            "impls.one_more",
            "needs its table: needs_table: true",
        ),
        (changed("impls", KERNELS, "row_multiple", to=0), f"impls.{KERNELS}.row_multiple", "a positive whole number"),
        (
            changed("impls", KERNELS, "row_multipl", to=16),
            f"impls.{KERNELS}.row_multipl",
            "did you mean 'row_multiple'?",
        ),
        (changed("impls", KERNELS, "vendors", to=["acme"]), f"impls.{KERNELS}.vendors[0]", "should be 'nvidia'"),
        (changed("impls", "nccl", "vendors", to=["nvidia", "cpu"]), "impls.nccl.vendors", "should be [nvidia]"),
        (changed("stands_for", to=None), "stock", "names one in `stands_for`"),
        (changed("stands_for", to="sglan"), "stands_for", "did you mean 'sglang'?"),
        (changed("impls", "host_staged", "carrier", to="hots"), "impls.host_staged.carrier", "should be 'library'"),
        (
            changed("impls", KERNELS, "carrier", to="host"),
            f"impls.{KERNELS}.carrier",
            "belongs to an impl of kind composed",
        ),
        (
            changed("impls", "host_staged", "max_message_bytes_of", to={"one_shot": 0}),
            "impls.host_staged.max_message_bytes_of.one_shot",
            "a positive whole number is expected",
        ),
        (
            changed("impls", "host_staged", "max_message_bytes_of", to={"two_shot": 1}),
            "impls.host_staged.max_message_bytes_of.two_shot",
            "should be 'gather' or 'one_shot'",
        ),
        (
            changed("impls", "host_staged", "needs_table", to=False),
            "impls.host_staged",
            "hosts differ, and no formula knows them, so it needs its table: needs_table: true",
        ),
        (changed("impls", KERNELS, "kind", to="kernel"), f"impls.{KERNELS}.kind", "should be 'library'"),
    ],
)
def test_a_file_that_cannot_be_is_refused(data: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build(Executor, data, "x.yaml")
    assert caught.value.field == field
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("dtype", "ranks", "width", "words"),
    [
        ("bf16", 8, 5120, None),
        ("fp32", 8, 5120, "takes bf16 or fp16 activations, not fp32"),
        ("bf16", 16, 5120, "runs over up to 8 ranks, and this group has 16"),
        ("bf16", 8, 5000, "takes rows of a multiple of 16 elements, and these have 5000"),
    ],
)
def test_an_op_by_our_kernels_keeps_their_limits(dtype: str, ranks: int, width: int, words: str | None) -> None:
    can = load_executor("transformers").can
    why = can.impl_refusal("attn_out", Op("all_reduce", impl=KERNELS), "nccl", dtype, ranks, width)
    assert why == (None if words is None else f"{KERNELS} {words}")


@pytest.mark.parametrize(("executor", "impl"), [("sglang", "custom_one_shot"), ("plan_only", "flashinfer_fused")])
def test_kernels_of_servers_take_rows_in_words_of_16_bytes(executor: str, impl: str) -> None:
    op = Op("all_reduce", impl=impl)
    found = [
        load_executor(executor).can.impl_refusal("attn_out", op, "nccl", "bf16", 8, width) for width in (5124, 5120)
    ]
    assert found == [f"{impl} takes rows of a multiple of 8 elements, and these have 5124", None]


@pytest.mark.parametrize(
    ("impl", "ranks", "words"),
    [
        ("flashinfer", 8, None),
        ("flashinfer", 6, "flashinfer runs over 2, 4 or 8 ranks, and this group has 6"),
        ("vllm_custom", 6, None),
        ("vllm_custom", 3, "vllm_custom runs over 2, 4, 6 or 8 ranks, and this group has 3"),
        ("mscclpp", 2, "mscclpp runs over 4, 8, 16, 32 or 64 ranks, and this group has 2"),
        ("custom_one_shot", 3, None),
    ],
)
def test_kernels_run_over_the_numbers_of_ranks_that_they_were_built_for(
    impl: str, ranks: int, words: str | None
) -> None:
    can = load_executor("plan_only").can
    assert can.impl_refusal("attn_out", Op("all_reduce", impl=impl), "nccl", "bf16", ranks, 5120) == words


@pytest.mark.parametrize("executor", ["plan_only", "sglang", "vllm"])
def test_neither_plan_nor_server_sums_over_six_ranks_by_kernels_for_two_four_and_eight(executor: str) -> None:
    heads = ("model.num_attention_heads=48", "model.num_key_value_heads=6", "model.intermediate_size=24576")
    machine = ("hardware=h200-8", f"executor={executor}", "parallelism.tp=6")
    planner = ModePlanner(load_setup("qwen3-32b-h200-tp2", (*heads, *machine)), "decode")
    for tokens in (1, 16, 256):
        for plan in (planner.best(tokens), StockPlanner(planner).prices(tokens).stock.plan):
            impls = {edge.op.impl for edge in plan.edges if edge.op.kind.is_collective}
            assert impls and not impls & {"flashinfer", "flashinfer_fused", "mscclpp"}


@pytest.mark.parametrize(
    ("impl", "backend", "words"),
    [
        ("nccl", "nccl", None),
        (KERNELS, "nccl", None),
        ("hccl", "nccl", "hccl runs on ascend, not where nccl is the backend"),
        (KERNELS, "gloo", f"{KERNELS} runs on nvidia, not where gloo is the backend"),
        ("other", "nccl", "other is a backend itself, and the backend here is nccl"),
    ],
)
def test_an_op_runs_by_the_backend_of_its_machine_or_by_what_runs_beside_it(
    impl: str, backend: str, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second library for the same devices is no impl beside the first: a machine has one."""
    monkeypatch.setitem(BACKENDS, "other", BackendRecord("nvidia", "cuda"))
    can = load_executor("transformers").can
    can = replace(can, impls=can.impls | {"other": Impl(("nvidia",))})
    assert can.impl_refusal("attn_out", Op("all_reduce", impl=impl), backend, "bf16", 2, 5120) == words


def test_only_the_runtime_that_is_ours_can_be_measured() -> None:
    assert [load_executor(name).is_measurable for name in ("plan_only", "sglang", "transformers")] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("place", "to", "field", "words"),
    [
        (("sums", 0, "impl"), "custom", "stock.sums[0].impl", "no such impl of all_reduce"),
        (("fusions", 0, "impl"), "flashinfer", "stock.fusions[0].impl", "did you mean 'flashinfer_fused'?"),
        (("sums", 0, "max_message_bytes"), 0, "stock.sums[0].max_message_bytes", "greater than 0"),
        (("flags", 0, "ops", "mlp_out"), "reduce_scater", "stock.flags[0].ops.mlp_out", "'reduce_scatter'"),
        (("flags", 0, "modes"), ["prefil"], "stock.flags[0].modes[0]", "should be 'prefill'"),
        (("forwards", -1, "attn_dp"), True, "stock.forwards", "the last entry speaks of every forward"),
    ],
)
def test_rules_of_a_server_that_cannot_be_are_refused(place: tuple[Any, ...], to: Any, field: str, words: str) -> None:
    data = copy.deepcopy(read_mapping(executor_path("sglang")))
    *path, last = ("stock", *place)
    inner: Any = data
    for key in path:
        inner = inner[key]
    inner[last] = to
    with pytest.raises(InputError) as caught:
        build(Executor, data, "x.yaml")
    assert caught.value.field == field
    assert words in caught.value.message
