"""The stock server runs by its rules, whatever is cheapest: which kernel takes a sum, what is fused, what flags do."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner, StockStep
from commplan.planner.strategy.file.document import is_faster

from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model, latent_model, own_table, table

INPUT_SCATTERED, LAYERNORM_SP = "--enable-attn-tp-input-scattered", "--enable-layernorm-sp"
TOKENS = 64
ROW_BYTES = 2 * HIDDEN_SIZE
LIBRARY_US, OWN_US, FUSED_US, SCATTER_US, GATHER_US = 20.0, 7.0, 5.0, 11.0, 9.0
KERNEL_US, BYTES_PER_US = 2.0, 800e3  # of the invented machine: what one pass over memory costs
LAYERS = 2


def flat(op: str, us: float, size: int, impl: str = "nccl") -> dict[str, Any]:
    """A collective of one time, whatever the size."""
    return table(op, size, {1: us, 1 << 40: us}, impl=impl)


def machine(size: int = 4, own_us: float = OWN_US, longer: float = 1.0, **fields: Any) -> Machine:
    tables = (
        flat("all_reduce", LIBRARY_US, size),
        flat("reduce_scatter", SCATTER_US * longer, size),
        flat("all_gather", GATHER_US * longer, size),
        flat("all_reduce", own_us, size, "custom_one_shot"),
        own_table("all_reduce", size, {1: FUSED_US, 1 << 20: FUSED_US}, "flashinfer_fused"),
    )
    return Machine(tables=tables, **fields)


@pytest.fixture
def stock(folder):
    """The stock planner of a tiny deployment for SGLang."""

    def planner(model=None, on: Machine | None = None, mode: str = "prefill", executor: str = "sglang", **given: Any):
        folder.executor = executor
        setup = folder.setup(model or dense_model(LAYERS), on or machine(), launch="graph", **given)
        return StockPlanner(ModePlanner(setup, mode))

    return planner


def impls(step: StockStep, boundary: str = "attn_out") -> list[str | None]:
    return [e.op.impl for layer in step.plan.layers for e in layer if e.boundary == boundary]


def ops(step: StockStep, layer: int = 0) -> dict[str, str]:
    return {e.boundary: str(e.op) for e in step.plan.layers[layer] if e.op.kind.runs}


def passes_us(tokens: int, bytes_per_element: int) -> float:
    return KERNEL_US + tokens * HIDDEN_SIZE * bytes_per_element / BYTES_PER_US


def test_a_step_is_compute_and_what_the_rules_put_at_each_boundary(stock) -> None:
    planner = stock()
    compute = planner.planner.fixed_ps(TOKENS) / 10**6
    embedding = OWN_US + passes_us(TOKENS, 4)
    sums = 2 * LAYERS * (OWN_US + passes_us(TOKENS, 8))
    assert planner.default(TOKENS).step_us == pytest.approx(compute + embedding + sums)


def test_the_rule_is_followed_where_another_impl_is_cheaper(stock) -> None:
    planner = stock(on=machine(own_us=10 * LIBRARY_US))
    step = planner.default(TOKENS)
    assert set(impls(step)) == {"custom_one_shot"}
    assert step.step_us > planner.prices(TOKENS).library.step_us


def test_its_own_kernel_takes_messages_up_to_16_mib_and_the_library_those_above(stock) -> None:
    last = (16 << 20) // ROW_BYTES
    planner = stock()
    assert set(impls(planner.default(last))) == {"custom_one_shot"}
    assert set(impls(planner.default(last + 1))) == {None}


@pytest.mark.parametrize(("tp", "impl"), [(2, "custom_one_shot"), (4, None)])
def test_over_pcie_more_than_two_ranks_are_the_librarys(stock, tp: int, impl: str | None) -> None:
    planner = stock(on=machine(tp, topology="pcie"), tp=tp)
    assert set(impls(planner.default(TOKENS))) == {impl}
    assert set(impls(planner.default((8 << 20) // ROW_BYTES + 1))) == {None}


def test_other_vendors_have_the_library_alone(stock) -> None:
    for vendor in ("ascend", "cpu"):
        planner = stock(on=Machine(vendor=vendor))
        assert set(impls(planner.default(TOKENS))) == {None}


def test_a_fused_kernel_takes_sum_and_norm_up_to_2048_tokens_in_models_that_have_it(stock) -> None:
    hopper = machine(fp8_tflops=200.0)
    planner = stock(latent_model(), hopper)
    # The last sum stays apart: no layer's norm follows it.
    assert impls(planner.default(2048), "mlp_out") == ["flashinfer_fused", "custom_one_shot"]
    assert set(impls(planner.default(2048))) == {"flashinfer_fused"}
    assert set(impls(planner.default(2049))) == {"custom_one_shot"}
    assert set(impls(stock(latent_model(), machine()).default(TOKENS))) == {"custom_one_shot"}  # no FP8: not SM90
    assert set(impls(stock(dense_model(), hopper).default(TOKENS))) == {"custom_one_shot"}
    shared = stock(latent_model(), hopper, tp=4, attn_dp=2, mode="decode").default(TOKENS)
    assert "flashinfer_fused" not in impls(shared)


def test_a_fused_kernel_is_one_price_with_its_norm(stock) -> None:
    """Against the same server without it: the sums that are fused cost their table and no norm apart."""
    apart, fused = (stock(latent_model(), machine(fp8_tflops=f)) for f in (None, 200.0))
    saved = 3 * (OWN_US + passes_us(TOKENS, 8) - FUSED_US)
    assert apart.default(TOKENS).step_us - fused.default(TOKENS).step_us == pytest.approx(saved)


def test_the_input_scattered_flag_is_a_late_gather(stock) -> None:
    flag = stock(latent_model()).best_flag(TOKENS)
    assert flag.name == INPUT_SCATTERED
    assert str(flag.plan.embed_out.op) == "reduce_scatter"
    late = {"attn_in": "latent_all_gather", "attn_out": "all_reduce(residual=fold, impl=custom_one_shot)"}
    assert ops(flag, 0) == {**late, "mlp_out": "reduce_scatter"}
    assert ops(flag, 1) == {**late, "mlp_out": "all_reduce(impl=custom_one_shot)"}


def test_flags_are_for_their_models_and_modes(stock) -> None:
    assert stock(latent_model(), mode="decode").best_flag(TOKENS) is None
    assert stock(dense_model()).best_flag(TOKENS).name == LAYERNORM_SP
    assert stock(dense_model() | {"architecture": "Qwen2ForCausalLM"}).best_flag(TOKENS) is None
    assert stock(latent_model(), tp=4, attn_dp=2).best_flag(TOKENS) is None


def test_sharded_norms_hide_all_but_one_chunk_in_n_of_their_collectives(stock) -> None:
    def step(weights: str, longer: float) -> float:
        dtypes = {"weights": weights, "activations": "bf16", "kv_cache": "bf16"}
        slow = machine(fp8_tflops=0.5, bf16_tflops=0.5, longer=longer)  # compute enough to hide behind
        planner = stock(on=slow, dtypes=dtypes, tp=4)
        flag = planner.best_flag(4096)
        compute = planner.planner.fixed_ps(4096) / 10**6
        return flag.step_us - compute

    shard = 4096 // 4
    embedding = OWN_US + passes_us(4096, 4)
    norms = 2 * LAYERS * passes_us(shard, 8)
    # attn_out, mlp_in, mlp_out of each layer and attn_in of the second; two more gathers, and that of the logits.
    fused = 2 * LAYERS * SCATTER_US + (2 * LAYERS - 1) * GATHER_US
    once = 3 * GATHER_US
    per_op = 60 * (4 * LAYERS - 1)
    assert step("w8a16", 100) == pytest.approx(embedding + norms + 100 * (fused + once))
    assert step("bf16", 100) == pytest.approx(embedding + norms + 100 * (fused / 4 + once) + per_op)
    assert step("bf16", 1) == step("w8a16", 1) == pytest.approx(embedding + norms + fused + once), "never a loss"


def test_a_flag_whose_class_the_deployment_refuses_is_no_rival(stock) -> None:
    for loosest, name in (("quantized", "--enable-quant-communications"), ("reordered", None)):
        qwen2 = dense_model() | {"architecture": "Qwen2ForCausalLM"}
        flag = stock(qwen2, Machine(vendor="ascend"), loosest=loosest).best_flag(TOKENS)
        assert (flag and flag.name) == name


def test_an_executor_that_is_no_server_is_held_against_the_one_it_stands_for(stock) -> None:
    steps = [stock(latent_model(), executor=name).prices(TOKENS) for name in ("sglang", "transformers", "plan_only")]
    assert len({step.stock.step_us for step in steps}) == 1
    assert len({step.best_flag.step_us for step in steps}) == 1


def test_the_library_has_no_kernel_of_the_servers(stock) -> None:
    prices = stock().prices(TOKENS)
    assert set(impls(prices.library)) == {None}
    assert prices.library.step_us - prices.stock.step_us == pytest.approx((2 * LAYERS + 1) * (LIBRARY_US - OWN_US))


def test_attention_dp_sums_a_buffer_of_all_rows_while_its_own_kernel_takes_it(stock) -> None:
    planner = stock(latent_model(), tp=4, attn_dp=2, mode="decode")
    last = (16 << 20) // ROW_BYTES
    assert ops(planner.default(last)) == {
        "attn_out": "all_reduce(group=tp, residual=fold, impl=custom_one_shot)",
        "mlp_out": "all_reduce(group=tp, impl=custom_one_shot)",
    }
    assert list(ops(planner.default(last + 4))) == ["attn_out", "mlp_in", "mlp_out"]
    assert ops(planner.default(last + 4))["mlp_in"] == "all_gather(group=tp)"


def test_experts_behind_an_all_to_all_take_shards(stock) -> None:
    planner = stock(latent_model(), tp=4, ep=4, moe_backend="all_to_all", executor="transformers")
    assert ops(planner.default(TOKENS), 1)["attn_out"] == "reduce_scatter"


def test_on_one_device_nothing_travels(stock) -> None:
    planner = stock(tp=1)
    assert planner.default(TOKENS).step_us == planner.planner.step_us(planner.planner.best(TOKENS), TOKENS)


def test_a_rival_that_leads_is_found_with_the_counts_between_which_it_does(stock) -> None:
    """The flag loses where launches count and wins where bytes do: brute force over every count agrees."""
    tables = (
        table("all_reduce", 4, {1: 10.0, 1 << 18: 10.0, 1 << 21: 40.0}),
        flat("reduce_scatter", 9.0, 4),
        flat("all_gather", 8.0, 4),
        flat("all_reduce", 12.0, 4, "custom_one_shot"),
    )
    planner = stock(latent_model(), Machine(tables=tables))
    plan = planner.planner.library(TOKENS)
    found = {rival.flag: rival for rival in planner.faster_rivals(plan, 1, 4096)}

    def leads(tokens: int) -> bool:
        return is_faster(planner.best_flag(tokens).step_us, planner.planner.step_us(plan, tokens))

    ahead = [tokens for tokens in range(1, 4097) if leads(tokens)]
    rival = found[INPUT_SCATTERED]
    assert (rival.first, rival.last) == (ahead[0], ahead[-1])
    assert 1 < rival.first < rival.last == 4096


def test_a_lead_within_what_a_range_gives_up_is_not_told(stock) -> None:
    planner = stock(search={"range_tolerance": 0.9})
    plan = planner.planner.library(TOKENS)
    assert planner.default(TOKENS).step_us < planner.planner.step_us(plan, TOKENS)
    assert planner.faster_rivals(plan, TOKENS, TOKENS) == ()
