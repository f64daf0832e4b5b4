"""Plans whose sums are composed around the library: within the error charged, counted as planned, compiled too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from commplan.planner.strategy.file import Op, Parallelism, StrategyFile
from commplan.runtime.errors import RefusedError
from commplan.runtime.kernels.peer_impls import (
    COMPOSED,
    COMPOSED_NORM,
    STAGED,
    STAGED_NORM,
    TRITON_NORM,
    check_peer_ops,
    messages_needed,
    one_shots_needed,
)
from commplan.runtime.transformers.checkpoint_fit import check_runnable

from ..legal_plans import Plan, World, covering_plans, is_quantized
from ..own_plans import impls_of
from ..parity import Named, relative_rms
from ..strategy_files import from_plans, ranges_of, strategy_file, world_of
from ..transformers.test_int8_plans import charged
from ..world import RankWorld
from .composed_plans import compiled_counts, executed

Checkpoint = Callable[..., Path]
Worlds = Callable[[int], RankWorld]
TWO = Parallelism(2)
NONE = Op("none")
INT8 = Op("int8_all_reduce", "gather")
INT6 = Op("quantized_all_reduce", "two_shot", wire_name="int6", scale_group="64")
SPIKES = Op("quantized_all_reduce", "gather", wire_name="int4_spikes", scale_group="64")


def composed(world: World, plan: Plan, fused: bool) -> Plan:
    """Every quantised sum around the library, with its norm where one follows."""

    def impl(edge) -> str:  # type: ignore[no-untyped-def]
        return COMPOSED_NORM if fused and TRITON_NORM in impls_of(world, edge) else COMPOSED

    ops = (replace(e.op, impl=impl(e), pieces=2) if is_quantized(e) else e.op for e in plan)
    return tuple(replace(edge, op=op) for edge, op in zip(plan, ops, strict=True))


@pytest.mark.slow
def test_int8_plans_stay_within_what_the_budget_charges(checkpoint: Checkpoint, world: Worlds) -> None:
    folder, p = checkpoint("qwen3"), Parallelism(4, 2)
    algebra = world_of(folder, p)
    plans = [plan for plan in covering_plans(algebra, 1, quantized=True) if any(map(is_quantized, plan))][::3]
    chosen = [composed(algebra, plan, fused=bool(n % 2)) for n, plan in enumerate(plans)]
    named = [Named(str(n), from_plans(folder, p, plan, plan), plan, plan) for n, plan in enumerate(chosen)]
    for of_ranks, plan in zip(zip(*world(p.tp).run(relative_rms, str(folder), named), strict=True), plans, strict=True):
        error = math.sqrt(sum(squared for squared, _ in of_ranks) / sum(s for _, s in of_ranks))
        allowed = charged(algebra, plan)
        assert allowed / 20 < error < 2 * allowed, ", ".join(str(edge.op) for edge in plan)


def mixed(folder: Path) -> StrategyFile:
    """Every layer, boundary, mode and range another op; the last FFN with the final norm."""

    def by(op: Op, pieces: int | None = None, norm: bool = True) -> Op:
        return replace(op, impl=COMPOSED_NORM if norm else COMPOSED, pieces=pieces)

    plain = Op("all_reduce")
    short = ranges_of([plain, *([NONE, plain, NONE, plain] * 2), NONE], 1, 4)
    ops = [NONE, by(INT8, 3), NONE, plain, NONE, by(INT6, 2, norm=False), NONE, by(SPIKES)]
    long = ranges_of([plain, *ops, NONE], 5, 256)
    return strategy_file(folder, TWO, {"prefill": [short, long], "decode": [short, long]})


@pytest.mark.slow
def test_formats_by_layer_boundary_mode_and_range_run_and_are_counted(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    for wrong, impls, error in world(2).run(executed, str(folder), mixed(folder)):
        assert not wrong
        assert impls == {"gloo", COMPOSED, COMPOSED_NORM}
        assert 1e-3 < error < 0.2


def staged(folder: Path) -> StrategyFile:
    """Through the host's memory, by layer, boundary and range, beside sums around the library."""

    def by(op: Op, pieces: int | None = None, norm: bool = True) -> Op:
        return replace(op, impl=STAGED_NORM if norm else STAGED, pieces=pieces)

    plain = Op("all_reduce")
    rows = Op("all_reduce", "gather")
    short = ranges_of([plain, *([NONE, by(rows), NONE, by(INT8)] * 2), NONE], 1, 4)
    first, second = by(rows, 2, norm=False), by(SPIKES, 4, norm=False)
    ops = [NONE, by(INT8, 2), NONE, first, NONE, second, NONE, replace(INT8, impl=COMPOSED_NORM)]
    long = ranges_of([plain, *ops, NONE], 5, 256)
    return strategy_file(folder, TWO, {"prefill": [short, long], "decode": [short, long]})


@pytest.mark.slow
def test_messages_through_the_hosts_memory_are_sent_and_counted(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    assert messages_needed(staged(folder)).keys() == {"tp"}
    for wrong, impls, error in world(2).run(executed, str(folder), staged(folder)):
        assert not wrong
        assert impls == {"gloo", COMPOSED_NORM, STAGED, STAGED_NORM}
        assert 1e-3 < error < 0.2


def few_and_many(folder: Path) -> StrategyFile:
    """Few rows by one kernel through the host's memory, with their norm and without; more by copies there."""
    plain, one_shot = Op("all_reduce"), Op("all_reduce", "one_shot")
    bare, normed = replace(one_shot, impl=STAGED), replace(one_shot, impl=STAGED_NORM)
    few = ranges_of([bare, NONE, normed, NONE, normed, NONE, bare, NONE, normed, NONE], 1, 4)
    many = ranges_of([plain, *([NONE, replace(INT8, impl=STAGED_NORM), NONE, plain] * 2), NONE], 5, 256)
    return strategy_file(folder, TWO, {"prefill": [few, many], "decode": [few, many]})


@pytest.mark.slow
def test_few_rows_are_summed_by_one_kernel_there_and_counted(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    file = few_and_many(folder)
    ((key, rows),) = one_shots_needed(file).items()
    assert (key, rows) == (("tp", file.model.hidden_size), 4)
    assert one_shots_needed(staged(folder)) == {}
    assert messages_needed(file) == {"tp": 256 * (file.model.hidden_size + 16)}  # of the quantised ones alone
    for wrong, impls, error in world(2).run(executed, str(folder), file):
        assert not wrong
        assert impls == {"gloo", STAGED, STAGED_NORM}
        assert 1e-3 < error < 0.2


@pytest.mark.slow
def test_without_any_quantised_sum_the_logits_are_those_of_one_process(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    sums = replace(Op("all_reduce", "one_shot"), impl=STAGED_NORM)
    plan = ranges_of([replace(sums, impl=STAGED), *([NONE, sums] * 4), NONE], 1, 64)
    file = strategy_file(folder, TWO, {"prefill": [plan], "decode": [plan]})
    for wrong, impls, error in world(2).run(executed, str(folder), file):
        assert not wrong
        assert impls == {STAGED, STAGED_NORM}
        assert error < 1e-5
    for done in world(2).run(compiled_counts, str(folder), Named("one shot", file)):
        assert done.compiled_counts == done.eager_counts


def test_more_rows_than_the_kernel_is_for_are_refused(checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen3")
    sums = replace(Op("all_reduce", "one_shot"), impl=STAGED_NORM)
    plain = Op("all_reduce")

    def file(last: int) -> StrategyFile:
        plan = ranges_of([plain, *([NONE, sums] * 4), NONE], 1, last)
        return strategy_file(folder, TWO, {"decode": [plan]})

    most = 2621440 // (2 * file(1).model.hidden_size)
    check_peer_ops(file(most))
    with pytest.raises(RefusedError, match=f"one_shot of {STAGED_NORM} takes up to {most} rows of this width"):
        check_peer_ops(file(most + 2))


@pytest.mark.slow
def test_they_are_traced_into_whole_graphs_that_count_their_replays(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    for done in world(2).run(compiled_counts, str(folder), Named("mixed", mixed(folder))):
        assert done.compiled_counts == done.eager_counts
        assert {key[4] for key in done.compiled_counts} == {"gloo", COMPOSED, COMPOSED_NORM}


def test_a_format_that_the_library_alone_does_not_sum_in_is_refused_with_the_impls_that_do(
    checkpoint: Checkpoint,
) -> None:
    sums = [Op("all_reduce"), *([NONE, SPIKES] * 4), NONE]
    file = strategy_file(checkpoint("qwen3"), TWO, {"prefill": [ranges_of(sums, 1, 8)]})
    with pytest.raises(RefusedError, match="gloo alone does not perform quantized_all_reduce; name an impl") as refused:
        check_runnable(file)
    assert refused.value.field == "modes.prefill[0].layers.0.attn_out"
