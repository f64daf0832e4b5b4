"""Executor vllm: only what vLLM 0.33 sums with, by the limits of these devices and ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from commplan.planner.executors import load_executor
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner
from commplan.planner.strategy.errors import InputError

from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model, own_table, table

ROW = 2 * HIDDEN_SIZE
MIB = 1 << 20


def flat(impl: str, us: float, size: int) -> dict[str, Any]:
    return table("all_reduce", size, {1: us, 1 << 40: us}, impl=impl)


def tables(size: int) -> tuple[dict[str, Any], ...]:
    return (
        flat("nccl", 20.0, size),
        flat("flashinfer", 12.0, size),
        flat("vllm_custom", 9.0, size),
        flat("multimem", 11.0, size),
        own_table("all_reduce", size, {1: 8.0, 1 << 20: 8.0}, "flashinfer_fused"),
    )


@pytest.fixture
def setup(folder):
    def of(tp: int = 8, capability: str | None = "9.0", executor: str = "vllm", **machine: Any):
        folder.executor = executor
        on = Machine(tables=tables(tp), compute_capability=capability, peer_access=True, **machine)
        return folder.setup(dense_model(2), on, tp=tp)

    return of


def impls(setup, tokens: int, boundary: str = "attn_out") -> set[str | None]:
    plan = StockPlanner(ModePlanner(setup, "prefill")).default(tokens).plan
    return {e.op.impl for e in plan.edges if e.boundary == boundary}


@pytest.mark.parametrize(
    ("capability", "ranks", "limits"),
    [
        # Fused, then FlashInfer's alone, its own, symmetric memory: the last bytes that each takes.
        ("9.0", 8, {"flashinfer_fused": 512 << 10, "multimem": 64 * MIB}),
        ("9.0", 4, {"flashinfer_fused": 2 * MIB, "vllm_custom": 8 * MIB - 16, "multimem": 32 * MIB}),
        ("10.0", 8, {"flashinfer_fused": MIB, "flashinfer": 128 * MIB}),
        ("10.7", 8, {"flashinfer_fused": 2 * MIB, "vllm_custom": 4 * MIB - 16, "multimem": 64 * MIB}),
    ],
)
def test_by_default_it_sums_by_the_first_kernel_whose_limit_holds(
    setup, capability: str, ranks: int, limits: dict[str, int]
) -> None:
    made = setup(ranks, capability)
    names = [*limits, None]
    for name, following, most in zip(names, names[1:], limits.values(), strict=False):
        assert impls(made, most // ROW) == {name}
        assert impls(made, most // ROW + 1) == {following}


def test_without_multicast_its_own_kernel_takes_messages_below_8_mib(setup) -> None:
    made = setup(8, multicast=False)
    assert impls(made, 8 * MIB // ROW - 1) == {"vllm_custom"}
    assert impls(made, 8 * MIB // ROW) == {None}


def test_the_norm_before_the_head_is_fused_too(setup) -> None:
    """In SGLang the last sum of all stays apart."""
    assert impls(setup(), 64, "mlp_out") == {"flashinfer_fused"}


def test_a_plan_is_held_to_limits_of_kernels_but_to_none_of_the_fused_one(setup) -> None:
    """That one a user may tell."""
    made = setup(8).executor.impls
    assert made["flashinfer"].max_message_bytes == 512 << 10
    assert made["flashinfer_fused"].max_message_bytes is None
    assert made["flashinfer_fused"].stock_only is None


def test_a_kernel_without_a_limit_for_these_ranks_is_refused_with_that_reason(setup) -> None:
    made = setup(4, "8.0").executor
    assert made.impls["multimem"].stock_only == (
        "it has no limit of multimem for compute capability 8.0, and so never runs it there"
    )
    why = setup(2).executor.impls["multimem"].stock_only
    assert why is not None and "2 ranks of compute capability 9.0" in why


def test_every_op_but_an_all_reduce_is_refused_with_a_reason() -> None:
    can = load_executor("vllm").can
    assert set(can.ops) == {"all_reduce"}
    for op in load_executor("sglang").ops:
        if op != "all_reduce":
            assert "vLLM 0.33" in can.cannot_run(op), op


def test_a_machine_that_does_not_say_its_capability_is_refused(setup) -> None:
    with pytest.raises(InputError) as caught:
        setup(capability=None)
    assert caught.value.field == "hardware.compute_capability"
    assert "limits of vllm go by it" in caught.value.message


@pytest.mark.parametrize("capability", ["9", "nine", "9.0.1", ""])
def test_a_capability_that_is_none_is_refused(setup, capability: str) -> None:
    with pytest.raises(InputError) as caught:
        setup(capability=capability)
    assert caught.value.field == "compute_capability"


def test_a_plan_depends_on_the_capability_where_its_executor_does(setup) -> None:
    for executor, depends in (("vllm", True), ("sglang", False)):
        made = setup(executor=executor)
        hardware = made.hardware.model_copy(update={"compute_capability": "10.0"})
        other = replace(made, hardware=hardware)
        assert (other.fingerprints["hardware"] != made.fingerprints["hardware"]) == depends


def test_attention_data_parallelism_is_refused(folder) -> None:
    from commplan.planner.strategy.errors import NoLegalPlanError

    folder.executor = "vllm"
    made = folder.setup(dense_model(2), Machine(compute_capability="9.0", peer_access=True), tp=4, attn_dp=2)
    with pytest.raises(NoLegalPlanError, match="data parallelism"):
        ModePlanner(made, "prefill").ranges()
