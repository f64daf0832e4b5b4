"""The validator accepts the plans that are legal and no others, by a second statement of the layout algebra."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from commplan.planner.strategy.file import (
    DeploymentStamp,
    HardwareStamp,
    ModelStamp,
    StrategyFile,
    problems,
)
from commplan.planner.strategy.layout import IllegalOpError, LayerShape, Parallelism, State, apply
from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.ops import GROUPS, RESIDUAL_RULES, Op
from commplan.runtime.kernels.peer_impls import CAN

from .legal_plans import Streams, World, all_edges, all_plans, covering_plans, edges
from .strategy_files import ranges_of

RANKS = ((2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 2), (8, 4))
MODELS = [(latent, frozenset(sharded)) for latent in (False, True) for sharded in ((), (1,), (0, 1))]
WORLDS = [
    World(1),
    World(1, latent=True),
    *(World(tp, dp, latent, 2, sharded) for tp, dp in RANKS for latent, sharded in MODELS),
]


def spelled(world: World) -> str:
    sharded = "".join(map(str, sorted(world.sharded_mlps)))
    return (
        f"tp{world.tp}-dp{world.attn_dp}{'-latent' if world.latent else ''}{f'-all_to_all{sharded}' if sharded else ''}"
    )


def file_of(world: World, ops: Sequence[Op]) -> StrategyFile:
    sharded = world.sharded_mlps
    return StrategyFile(
        model=ModelStamp("m", "target", "A", world.layers, 64, 56 if world.latent else 0, sharded, "f"),
        hardware=HardwareStamp("h", "gloo", "f"),
        deployment=DeploymentStamp("d", "fp32", "f"),
        executor="transformers",
        parallelism=Parallelism(world.tp, world.attn_dp, moe_backend="all_to_all" if sharded else "tensor_parallel"),
        numerics="quantized",
        modes={"prefill": (ranges_of(ops),)},
    )


def accepted(world: World, ops: Sequence[Op]) -> bool:
    return next(iter(problems(file_of(world, ops))), None) is None


def legal(world: World, ops: Sequence[Op]) -> bool:
    """Whether a sequence is one of `all_plans`, whatever way its groups and producers are spelled."""
    before: Streams | None = None
    for (layer, boundary), op in zip(world.places, ops, strict=True):
        taken = [e for e in edges(world, (layer, boundary), before) if _same(world, layer, boundary, op, e.op)]
        if not taken:
            return False
        before = taken[0].after
    return True


def _same(world: World, layer: int | None, boundary: str, written: Op, edge: Op) -> bool:
    if written.producer == f"{(layer or 0) - 1}.mlp_out" and layer:
        written = replace(written, producer="previous.mlp_out")
    if written.group is None and world.attn_dp > 1:
        usual = {"attn_out": "attn_tp", "mlp_out": "tp", "embed_out": "attn_tp"}.get(boundary, edge.group)
        written = replace(written, group=usual if edge.group is not None else None)
    elif written.group in ("tp", "attn_tp") and world.attn_dp == 1 and not written.kind.spans_two:
        written = replace(written, group=None)
    return written == edge


def vocabulary(layer: int | None, boundary: str) -> Iterator[Op]:
    """Every op that a file can spell, and this runtime can execute."""
    producers = ("embed_out", "previous.mlp_out", f"{(layer or 0) - 1}.mlp_out", "5.mlp_out", None)
    values = {"group": (*GROUPS, None), "residual": (*RESIDUAL_RULES, None), "from": producers}
    for name, kind in KINDS.items():
        if (kind.runs and name not in CAN.ops) or kind.wires:
            continue  # a sum whose op names its format has the layouts of the one in INT8
        given = [values[key] if key in kind.parameters else (None,) for key in values]
        for algorithm, group, residual, producer in itertools.product(kind.algorithms or (None,), *given):
            if boundary == "embed_out" and residual is not None:
                continue  # there is no residual yet: the rule is accepted and has no effect
            yield Op(name, algorithm, group, residual, None, producer)


@pytest.mark.parametrize("world", WORLDS, ids=spelled)
def test_every_legal_plan_is_accepted(world: World) -> None:
    refused = [plan for plan in all_plans(world, quantized=False) if not accepted(world, [e.op for e in plan])]
    assert not refused, refused[0]


@pytest.mark.parametrize("world", WORLDS, ids=spelled)
def test_at_every_place_the_same_ops_are_legal(world: World) -> None:
    """Both statements are walked side by side, through every pair of states that any sequence reaches."""
    p = Parallelism(world.tp, world.attn_dp)
    reached: set[tuple[State | None, Streams | None]] = {(None, None)}
    for layer, boundary in world.places:
        shape = LayerShape(all_to_all=layer in world.sharded_mlps, has_latent=world.latent)
        after: set[tuple[State | None, Streams | None]] = set()
        for theirs, ours in reached:
            for op in vocabulary(layer, boundary):
                if op.name == "latent_all_gather" and op.producer != ("previous.mlp_out" if layer else "embed_out"):
                    continue  # the algebra does not look at who made the shard
                taken = [e for e in edges(world, (layer, boundary), ours) if _same(world, layer, boundary, op, e.op)]
                try:
                    state = apply(boundary, op, theirs, shape, p)
                except IllegalOpError:
                    state = None
                assert (state is not None) == bool(taken), f"{op} at {layer} {boundary} after {theirs}"
                if taken:
                    after.add((state, taken[0].after))
        reached = after


@pytest.mark.slow
@pytest.mark.parametrize("world", [w for w in WORLDS if w.tp in (2, 4) and w.latent], ids=spelled)
def test_a_plan_with_one_other_op_is_accepted_exactly_if_it_is_legal(world: World) -> None:
    wrong = []
    for plan in covering_plans(world, least=1, quantized=True):
        ops = [edge.op for edge in plan]
        for index, (layer, boundary) in enumerate(world.places):
            for op in vocabulary(layer, boundary):
                changed = [*ops[:index], op, *ops[index + 1 :]]
                if accepted(world, changed) != legal(world, changed):
                    wrong.append(f"{op} at {layer} {boundary} of {', '.join(map(str, ops))}")
    assert not wrong, f"{len(wrong)}, first {wrong[0]}"


@pytest.mark.parametrize("world", WORLDS, ids=spelled)
def test_a_plan_for_other_ranks_or_another_model_is_accepted_exactly_if_it_is_legal_there(world: World) -> None:
    others = [w for w in WORLDS if w.tp == world.tp]
    for plan in covering_plans(world, least=1, quantized=True):
        ops = [edge.op for edge in plan]
        for other in others:
            assert accepted(other, ops) == legal(other, ops), (other, ops)


def test_the_algebra_is_worth_testing() -> None:
    edges_of = {spelled(world): len(all_edges(world)) for world in WORLDS}
    assert edges_of["tp2-dp1-latent"] >= 30
    assert edges_of["tp4-dp2-latent"] >= 50
