"""Plans that name collectives of our own compute the logits of one process, by the calls and with the counts planned.

Here they are composed of gloo's (the reference of the kernels), so what is tested is the runtime around the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from commplan.planner.strategy.file import Op, Parallelism, StrategyFile
from commplan.runtime.kernels.peer_impls import TRITON, TRITON_NORM, Room

from ..legal_plans import Plan, World, covering_plans, is_quantized, preferring
from ..own_plans import at_random, methods, most_fused, with_impls
from ..parity import Named
from ..strategy_files import from_plans, latent_width, ranges_of, read_config, strategy_file, world_of
from ..transformers.test_compiled import LATENT
from ..transformers.test_int8_plans import charged
from ..world import RankWorld
from .own_collectives import (
    Expected,
    compiled_with_own,
    failures,
    logits,
    made_by_switches,
    overwritten,
    said_of_a_dead_peer,
)

Checkpoint = Callable[..., Path]
Worlds = Callable[[int], RankWorld]
TWO, ATTENTION_DP = Parallelism(2), Parallelism(4, 2)
NONE = Op("none")
ALL_TO_ALL = Parallelism(2, 1, 2, "all_to_all")
RANDOM = {TWO: 8, ATTENTION_DP: 6, ALL_TO_ALL: 4}
FUSED = {
    "all_reduce": (("all_reduce", "all_gather"),) * 2,
    "reduce_scatter": (("reduce_scatter", "latent_all_gather", "all_gather"),) * 2,
    "layers differ": (("reduce_scatter", "all_gather"), ("all_reduce", "all_gather")),
    "folds": (("reduce_scatter", "all_gather"), ("all_reduce", "latent_all_gather", "all_gather")),
    "pairs": (("all_reduce_all_gather", "reduce_scatter_all_reduce", "all_reduce"),) * 2,
}


def own_plans(world: World, number: int, *, quantized: bool = False) -> list[tuple[str, Plan, Plan]]:
    """(name, prefill, decode): each sum with its norm where it can be, and at random over every edge."""
    found = []
    for name, preferred in FUSED.items():
        whole = with_impls(world, preferring(world, preferred), most_fused)
        found.append((name, whole, whole))
    chosen = covering_plans(world, 2 * number, quantized=quantized)
    if quantized:
        chosen = [plan for plan in chosen if any(map(is_quantized, plan))]
    mixed = [with_impls(world, plan, at_random(seed)) for seed, plan in enumerate(chosen)]
    pairs = zip(mixed[::2], mixed[1::2] + mixed[:1], strict=False)
    return [*([] if quantized else found), *((f"random {n}", *pair) for n, pair in enumerate(pairs))]


def expected(folder: Path, p: Parallelism) -> list[Expected]:
    found = []
    for name, prefill, decode in own_plans(world_of(folder, p), RANDOM[p]):
        named = Named(name, from_plans(folder, p, prefill, decode), prefill, decode)
        found.append(Expected(named, methods(prefill), methods(decode)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "p"),
    [
        ("qwen3", TWO),
        ("qwen3", ATTENTION_DP),
        ("deepseek_v3", TWO),
        ("deepseek_v3", ATTENTION_DP),
        ("deepseek_v3", ALL_TO_ALL),
    ],
    ids=["qwen3-tp2", "qwen3-tp4-dp2", "deepseek_v3-tp2", "deepseek_v3-tp4-dp2", "deepseek_v3-tp2-all_to_all"],
)
def test_every_plan_computes_the_logits_of_one_process_by_the_planned_calls(
    family: str, p: Parallelism, checkpoint: Checkpoint, world: Worlds
) -> None:
    folder = checkpoint(family)
    by_rank = world(p.tp).run(failures, str(folder), expected(folder, p), 2e-5)
    found = [f"rank {rank}: {text}" for rank, texts in enumerate(by_rank) for text in texts]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("p", [TWO, ATTENTION_DP], ids=["tp2", "tp4-dp2"])
def test_the_plans_use_every_collective_of_ours_at_every_edge_that_one_norm_follows(
    p: Parallelism, checkpoint: Checkpoint
) -> None:
    algebra = world_of(checkpoint("deepseek_v3"), p)
    used = {e for _, *plans in own_plans(algebra, RANDOM[p]) for plan in plans for e in plan if e.op.impl}
    used |= {e for _, *plans in own_plans(algebra, 1, quantized=True) for plan in plans for e in plan if e.op.impl}
    methods_used = set(methods(tuple(used)))
    assert {"all_reduce_norm", "reduce_scatter_norm", "int8_all_reduce_norm", "all_gather"} <= methods_used
    assert {"gather_sum", "scatter_sum"} <= methods_used or p.attn_dp == 1
    with_norm = [replace(e.op, impl=None) for e in used if e.op.impl == TRITON_NORM]
    assert {op.residual for op in with_norm} == {None, "fold", "gather"}


@pytest.mark.slow
@pytest.mark.parametrize("p", [TWO, ATTENTION_DP], ids=["tp2", "tp4-dp2"])
def test_int8_sums_of_ours_are_those_of_the_library(p: Parallelism, checkpoint: Checkpoint, world: Worlds) -> None:
    """To the bit: quantisation and order of additions are the same. And within the error that the planner charges."""
    folder = checkpoint("deepseek_v3", num_experts_per_tok=8, n_group=1)
    algebra = world_of(folder, p)
    plans = [plan for plan in covering_plans(algebra, 1, quantized=True) if any(map(is_quantized, plan))]
    fused = [with_impls(algebra, plan, most_fused) for plan in plans]
    bare = [with_impls(algebra, plan, lambda choices: choices[min(1, len(choices) - 1)]) for plan in plans]
    assert {e.op.algorithm for plan in fused for e in plan if e.op.impl == TRITON_NORM} == {"gather", "two_shot", None}
    files = [from_plans(folder, p, plan, plan) for same in zip(plans, fused, bare, strict=True) for plan in same]
    for of_rank in world(p.tp).run(logits, str(folder), files, p.attn_dp):
        for plan, library, *ours in zip(plans, of_rank[::3], of_rank[1::3], of_rank[2::3], strict=True):
            for got, wanted in ours:
                assert torch.allclose(got, library[0], rtol=0, atol=2e-5 if p.attn_dp == 1 else 0.02)
                error = (got - wanted).square().sum().sqrt() / wanted.square().sum().sqrt()
                assert error < 3 * charged(algebra, plan)


@pytest.mark.slow
def test_a_sum_with_its_norm_gives_the_bits_of_the_sum_and_then_the_norm(checkpoint: Checkpoint, world: Worlds) -> None:
    """In bf16, where an addition in another order or one rounding less would show."""
    folder = checkpoint("qwen3")
    plan = preferring(world_of(folder, TWO), (("all_reduce", "all_gather"),) * 2)
    fused = with_impls(world_of(folder, TWO), plan, most_fused)
    assert methods(fused) == ["all_reduce", *["all_reduce_norm"] * 4]
    files = [from_plans(folder, TWO, ops, ops, activations="bf16") for ops in (plan, fused)]
    for (library, _), (ours, _) in world(2).run(logits, str(folder), files, 1):
        assert library.dtype == torch.bfloat16
        assert torch.equal(library, ours)


@pytest.mark.slow
def test_a_residual_is_overwritten_inside_of_a_layer_and_never_where_a_hook_could_have_kept_it(
    checkpoint: Checkpoint, world: Worlds
) -> None:
    """Nor is what the first layer was given: it may be the caller's."""
    folder = checkpoint("qwen3")
    fused = with_impls(world_of(folder, TWO), preferring(world_of(folder, TWO), FUSED["all_reduce"]), most_fused)
    for found in world(2).run(overwritten, str(folder), from_plans(folder, TWO, fused, fused)):
        assert found.told == found.done == [False, False, True, False], "attn_out, mlp_out of two layers"
        assert found.seen_stays


# ---- compiled ----------------------------------------------------------------------------------------------------


def two_ranges(folder: Path, edge: int) -> StrategyFile:
    """Small forwards by all-reduce with its norm; large ones sharded, with a fold, and the last norm with its sum."""
    latent = latent_width(read_config(folder)) > 0
    summed, scattered = Op("all_reduce", impl=TRITON_NORM), Op("reduce_scatter", impl=TRITON_NORM)
    small = ranges_of([Op("all_reduce", impl=TRITON), *([NONE, summed, NONE, summed] * 2), NONE], 1, edge)
    gather, fold = Op("all_gather", impl=TRITON), Op("all_reduce", residual="fold", impl=TRITON_NORM)
    first = replace(LATENT[0], impl=TRITON) if latent else gather
    layers = [[first, scattered, gather, scattered], [gather, fold, NONE, scattered]]
    large = ranges_of([Op("reduce_scatter", impl=TRITON), *layers[0], *layers[1], gather], edge + 1, 256)
    return strategy_file(folder, TWO, {"prefill": [small, large], "decode": [small, large]})


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "deepseek_v3"])
def test_sums_that_wait_for_their_norm_are_traced_into_whole_graphs_that_count_their_replays(
    family: str, checkpoint: Checkpoint, world: Worlds
) -> None:
    folder = checkpoint(family)
    plan = Named("two ranges", two_ranges(folder, 2))
    for done in world(2).run(compiled_with_own, str(folder), plan):
        assert done.error <= 2e-5
        # A fold leaves out what a shard has beyond the last row: one more graph for counts that tp does not divide.
        assert set(done.graphs) == {("decode", 0), ("decode", 1), ("prefill", 1)}
        assert done.compiled_counts == done.eager_counts
        assert {key[4] for key in done.compiled_counts} == {TRITON, TRITON_NORM}


# ---- memory and faults -------------------------------------------------------------------------------------------


def to(file: StrategyFile, last: int) -> StrategyFile:
    """The same plan for forwards of up to `last` tokens."""
    modes = {mode: (replace(ranges[-1], first=1, last=last),) for mode, ranges in file.modes.items()}
    return replace(file, modes=modes)


@pytest.mark.slow
def test_peers_are_shared_by_all_boundaries_and_made_anew_only_for_more_rows(
    checkpoint: Checkpoint, world: Worlds
) -> None:
    folder = checkpoint("deepseek_v3")
    plan, width = two_ranges(folder, 2), latent_width(read_config(folder))
    plain = from_plans(folder, TWO, *[preferring(world_of(folder, TWO), (("all_reduce", "all_gather"),) * 2)] * 2)
    files = [to(plan, 31), plain, to(plan, 16), to(plan, 64), plain, to(plan, 63)]
    for of_rank in world(2).run(made_by_switches, str(folder), files):
        assert [in_all for in_all, _ in of_rank] == [2, 2, 2, 4, 4, 4]
        assert sorted(of_rank[0].open) == [(width, Room(rows=32)), (64, Room(rows=32))]  # whole shards
        assert sorted(of_rank[-1].open) == [(width, Room(rows=64)), (64, Room(rows=64))]


@pytest.mark.slow
def test_a_kernel_that_gave_up_is_an_error_at_the_next_forward_and_at_the_end_of_generation(
    checkpoint: Checkpoint, world: Worlds
) -> None:
    folder = checkpoint("qwen3")
    for said in world(2).run(said_of_a_dead_peer, str(folder), two_ranges(folder, 2)):
        for text, tokens in zip(said, ("prefill, 3 to 256", "decode, 1 to 2", "decode, 1 to 2"), strict=True):
            assert "rank 1 did not signal within 30 s; what forwards of " in text
            assert tokens in text
            assert f"attn_out (all_reduce({'residual=fold, ' if '256' in tokens else ''}impl={TRITON_NORM}))" in text


@pytest.mark.slow
def test_the_error_names_what_ran_by_kernels_not_what_ran_last(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    library = ranges_of([Op("all_reduce"), *([NONE, Op("all_reduce")] * 4), NONE], 1, 64)
    file = two_ranges(folder, 2)
    file = replace(file, modes={**file.modes, "decode": (library,)})
    for _, after_generating, _ in world(2).run(said_of_a_dead_peer, str(folder), file):
        assert "what forwards of prefill, 3 to 256 tokens, gave" in after_generating
