"""What vLLM is told of a plan: one limit for all modes, kernels it shall not have, and all that neither expresses."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.export.settings import Told, best_setting
from commplan.planner.export.told import FLASHINFER, OWN, SYMMETRIC, Setting, row_bytes, rules_under
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner

from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model, own_table, table

ROW = 2 * HIDDEN_SIZE
LAYERS = 2
FAR = 1 << 40
LIBRARY_US = 40.0


def rows(points: dict[int, float]) -> dict[int, float]:
    """Latencies by bytes, of latencies by rows."""
    return {count * ROW: us for count, us in points.items()}


def by_rows(impl: str, points: dict[int, float], size: int = 2) -> dict[str, Any]:
    return table("all_reduce", size, rows(points), impl=impl)


def fused(points: dict[int, float], size: int = 2) -> dict[str, Any]:
    return own_table("all_reduce", size, points, "flashinfer_fused")


OWN_US = 38.0
FLAT = by_rows("nccl", {1: LIBRARY_US, 1 << 20: LIBRARY_US})
APART = FLAT, by_rows("vllm_custom", {1: OWN_US, 1 << 20: OWN_US})
HALF = {1: 10.0, 512: 10.0, 513: 90.0, 8192: 90.0}
"""Ahead of the library and its norm up to 512 rows, far behind from the next one on."""


@pytest.fixture
def told(folder):
    """What a tiny deployment of vLLM's is told."""

    def of(*tables: dict[str, Any], tp: int = 2, capability: str = "9.0", **machine: Any) -> Told:
        folder.executor = "vllm"
        on = Machine(tables=tables, compute_capability=capability, peer_access=True, **machine)
        return best_setting(folder.setup(dense_model(LAYERS), on, tp=tp))

    return of


@pytest.fixture
def setup(folder):
    folder.executor = "vllm"
    return folder.setup(dense_model(LAYERS), Machine(compute_capability="9.0", peer_access=True), tp=8)


def test_the_limit_is_the_last_count_at_which_the_fused_kernel_is_the_quicker_one(told, folder) -> None:
    assert told(*APART, fused(HALF)).setting == Setting((), 512)
    # Where the plan has a quicker kernel than the one that vLLM would take, no range of it ends at that count.
    slowly = (
        by_rows("nccl", {1: 950.0, 1 << 20: 950.0}),
        by_rows("flashinfer", {1: 30.0, 1 << 20: 30.0}),
        by_rows("vllm_custom", {1: 15.0, 300: 15.0, 301: 500.0, 1 << 20: 500.0}),
        fused({1: 10.0, 16: 10.0, 4096: 200.0}),
    )
    found = told(*slowly).setting
    assert found.off == () and found.fused_tokens is not None and 128 < found.fused_tokens < 256
    on = Machine(tables=slowly, compute_capability="9.0", peer_access=True)
    planner = ModePlanner(folder.setup(dense_model(LAYERS), on, tp=2), "prefill")

    def us(fused_tokens: int, tokens: int) -> float:
        setting = Setting((), fused_tokens)
        return StockPlanner(planner, rules_under(setting, planner.setup)).default(tokens).step_us

    last = found.fused_tokens
    assert us(FAR, last) <= us(0, last)
    assert us(FAR, last + 1) > us(0, last + 1)


def test_vllm_makes_of_the_limit_the_tokens_that_it_was_made_of(told) -> None:
    """`int(mb * MiB) // (hidden_size * element_size)`, in config/compilation.py and the pass."""
    for tokens in (1, 3, 98, 512, 6553, 15605):
        for row in (ROW, 2 * 5120, 2 * 7168, 2 * 2880):
            mb = Setting((), tokens).pass_config(row)["fi_allreduce_fusion_max_size_mb"]
            assert int(mb * (1 << 20)) // row == tokens


def test_a_server_whose_defaults_are_as_good_is_told_nothing(told) -> None:
    found = told(*APART, fused({1: 10.0, 1 << 20: 10.0}))
    assert found.setting == Setting()
    assert found.default_tokens == (64 << 20) // ROW


def test_a_fused_kernel_that_is_never_ahead_is_switched_off(told) -> None:
    found = told(*APART, fused({1: 90.0, 1 << 20: 90.0}))
    assert found.setting.pass_config(ROW) == {"fuse_allreduce_rms": False}
    assert found.differences == []


def test_a_limit_at_the_largest_forward_says_nothing_of_larger_ones(told) -> None:
    """Over eight ranks vLLM fuses up to 512 KiB by default: 1024 rows here."""
    found = told(by_rows("nccl", {1: LIBRARY_US, 8192: LIBRARY_US}, 8), fused({1: 10.0, 8192: 10.0}, 8), tp=8)
    assert found.default_tokens == (512 << 10) // ROW
    assert found.setting.fused_tokens == found.largest == 4096


def test_a_kernel_that_stands_before_quicker_ones_is_switched_off(told) -> None:
    """FlashInfer's is asked first, up to 64 MiB, however slow it is; its own takes messages below 8 MiB."""
    slow, own = by_rows("flashinfer", {1: 90.0, 1 << 20: 90.0}), by_rows("vllm_custom", {1: 5.0, 1 << 20: 5.0})
    never = fused({1: 200.0, 1 << 20: 200.0})
    found = told(FLAT, slow, own, never)
    # Symmetric memory has no times here, so it must not come to stand where FlashInfer's was.
    assert found.setting.off == (FLASHINFER, SYMMETRIC)
    assert found.setting.environment == {"VLLM_ALLREDUCE_USE_FLASHINFER": "0", "VLLM_ALLREDUCE_USE_SYMM_MEM": "0"}
    assert told(FLAT, by_rows("flashinfer", {1: 4.0, 1 << 20: 4.0}), own, never).setting.off == ()


def test_its_own_kernel_is_switched_off_on_the_command_line() -> None:
    assert Setting((OWN,)).flags == ["--disable-custom-all-reduce"]
    assert Setting((OWN,)).environment == {}


def test_one_limit_serves_all_modes_and_what_it_misses_is_said(told) -> None:
    """Behind between 65 and 128 rows, ahead on both sides of that: a plan may have that, a limit not."""
    own = by_rows("vllm_custom", {1: 20.0, 128: 20.0, 129: 900.0, 1 << 20: 900.0})
    library = by_rows("nccl", {1: 950.0, 1 << 20: 950.0})
    found = told(library, own, fused({1: 10.0, 64: 10.0, 65: 60.0, 1 << 20: 60.0}))
    missed = [d for d in found.differences if d.boundary == "attn_out" and d.mode == "decode"]
    assert [(d.tokens, d.layers, d.planned, d.runs) for d in missed] == [
        ((65, 128), (0, 1), "all_reduce by vllm_custom", "all_reduce by flashinfer_fused")
    ]
    assert missed[0].slower > 0


def test_a_range_of_the_plan_is_cut_where_vllm_changes_its_kernel(told) -> None:
    """Over eight ranks its own kernel takes 511 rows, and is the quicker one up to 200; the plan changes there."""
    own = by_rows("vllm_custom", {1: 5.0, 200: 5.0, 201: 60.0, 1 << 20: 60.0}, 8)
    switch = by_rows("multimem", {1: 20.0, 1 << 20: 20.0}, 8)
    found = told(by_rows("nccl", {1: 95.0, 1 << 20: 95.0}, 8), own, switch, fused({1: 200.0, 1 << 20: 200.0}, 8), tp=8)
    missed = [d for d in found.differences if (d.mode, d.boundary) == ("prefill", "mlp_out")]
    assert [(d.tokens, d.planned, d.runs) for d in missed] == [
        ((201, 511), "all_reduce by multimem", "all_reduce by vllm_custom")
    ]


def test_a_plan_that_it_runs_throughout_has_no_differences(told) -> None:
    found = told(*APART, fused({1: 10.0, 1 << 20: 10.0}), multicast=False)
    assert {d.boundary for d in found.differences} == set()
    assert all(step.told_us == pytest.approx(step.planned_us) for step in found.steps)


def test_devices_without_a_fused_kernel_are_told_nothing_of_it(told) -> None:
    assert told(FLAT, capability="8.0").setting.fused_tokens is None


def test_a_limit_that_rests_on_a_formula_is_called_so(told) -> None:
    assert not told(*APART, fused(HALF)).by_formula
    assert told(by_rows("nccl", {1: 400.0, 1 << 20: 400.0}, 8), tp=8).by_formula


def test_a_kernel_without_times_is_named(told) -> None:
    assert told(*APART, fused(HALF)).unpriced == ("flashinfer",)
    assert told(*APART, fused(HALF), by_rows("flashinfer", {1: 50.0, 1 << 20: 50.0})).unpriced == ()


def test_without_symmetric_memory_its_own_kernel_takes_messages_up_to_its_own_limit(setup) -> None:
    """Over eight ranks of SM 9.0: 256 KiB beside symmetric memory, below 8 MiB without."""

    def most(setting: Setting) -> list[int | None]:
        return [rule.max_message_bytes for rule in rules_under(setting, setup).sums if rule.impl == "vllm_custom"]

    assert most(Setting())[0] == (256 << 10) - 16
    assert set(most(Setting((SYMMETRIC,)))) == {(8 << 20) - 16}
    assert row_bytes(setup) == ROW
