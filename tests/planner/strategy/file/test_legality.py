"""The validator accepts exactly what a second statement of the rules accepts, over random worlds, plans and edits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import dump, parse, problems

from ...random_machines import examples
from .rules import IN_LAYER, Op, State, World, is_legal, moves
from .texts import text_of

GROUPS = (None, "tp", "attn_tp", "attn_dp")
ALL_OPS = [
    *(Op(name) for name in ("none", "slice", "fused")),
    *(Op("all_reduce", group=g, residual=r) for g in GROUPS for r in (None, "fold", "gather")),
    *(Op("reduce_scatter_all_gather", group=g, residual=r) for g in GROUPS for r in (None, "fold", "gather")),
    *(Op("int8_all_reduce", a, g, r) for a in ("gather", "two_shot") for g in GROUPS for r in (None, "fold", "gather")),
    *(Op("reduce_scatter", group=g) for g in GROUPS),
    *(Op("all_gather", group=g) for g in GROUPS),
    *(
        Op("latent_all_gather", group=g, producer=p)
        for g in GROUPS
        for p in (None, "embed_out", "previous.mlp_out", "0.mlp_out", "1.mlp_out", "0.attn_out")
    ),
    *(
        Op(name, residual=r)
        for name in ("all_reduce_all_gather", "reduce_scatter_all_reduce")
        for r in (None, "fold", "gather")
    ),
]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    tp = draw(st.sampled_from([1, 2, 4, 8]))
    num_layers = draw(st.integers(1, 4))
    experts = draw(st.frozensets(st.integers(0, num_layers - 1)))
    return World(
        tp=tp,
        attn_dp=draw(st.sampled_from([n for n in (1, 2, 4, 8) if tp % n == 0])),
        num_layers=num_layers,
        moe_layers=experts,
        all_to_all=draw(st.booleans()),
        latents=draw(st.booleans()),
        numerics=draw(st.sampled_from(["exact", "reordered", "quantized", "quantized"])),
    )


@st.composite
def legal_plans(draw: st.DrawFn, world: World) -> list[Op]:
    """A random walk over the moves; one that ends in a dead end is not counted."""
    state, ops = None, []
    for layer, boundary in world.places():
        found = moves(world, layer, boundary, state)
        assume(found)
        op = draw(st.sampled_from(sorted(found, key=str)))
        ops.append(op)
        state = found[op]
    return ops


def accepted(text: str) -> bool:
    try:
        return not list(problems(parse(text)))
    except InputError:
        return False


@pytest.mark.slow
@examples(250)
@given(st.data())
def test_every_plan_that_the_rules_allow_is_accepted(data: st.DataObject) -> None:
    world = data.draw(worlds())
    ops = data.draw(legal_plans(world))
    text = text_of(world, ((1, 8), ops))
    assert list(problems(parse(text))) == []
    assert parse(dump(parse(text))) == parse(dump(parse(dump(parse(text)))))


@pytest.mark.slow
@examples(400)
@given(st.data())
def test_a_plan_with_one_op_exchanged_is_accepted_if_and_only_if_the_rules_allow_it(data: st.DataObject) -> None:
    world = data.draw(worlds())
    ops = data.draw(legal_plans(world))
    place = data.draw(st.integers(0, len(ops) - 1))
    ops[place] = data.draw(st.sampled_from(ALL_OPS))
    assert accepted(text_of(world, ((1, 8), ops))) == is_legal(world, ops), (world, world.places()[place], ops)


@pytest.mark.slow
@examples(200)
@given(st.data())
def test_a_plan_made_for_another_world_is_accepted_if_and_only_if_the_rules_allow_it(data: st.DataObject) -> None:
    """Another split, other experts, no latents, stricter numerics: the ops stay, what they mean does not."""
    world, other = data.draw(worlds()), data.draw(worlds())
    ops = data.draw(legal_plans(world))
    experts = frozenset(layer for layer in other.moe_layers if layer < world.num_layers)
    moved = replace(other, num_layers=world.num_layers, moe_layers=experts)
    assert accepted(text_of(moved, ((1, 8), ops))) == is_legal(moved, ops), (moved, ops)


@pytest.mark.slow
def test_every_op_at_every_boundary_of_small_worlds() -> None:
    """Exhaustive where it can be: all ops at each place of one layer, between all states that can stand around it."""
    for world in (
        World(tp=4, num_layers=1, latents=True),
        World(tp=4, num_layers=1, moe_layers=frozenset({0}), all_to_all=True),
        World(tp=4, num_layers=1, attn_dp=2),
        World(tp=4, num_layers=1, attn_dp=2, numerics="exact"),
        World(tp=4, num_layers=1, attn_dp=4),
        World(tp=1, num_layers=1),
    ):
        for beginning, ending in completions(replace(world, numerics="quantized")):
            for op in ALL_OPS:
                ops = [*beginning, op, *ending]
                assert accepted(text_of(world, ((1, 8), ops))) == is_legal(world, ops), (world, ops)


def completions(world: World) -> list[tuple[list[Op], list[Op]]]:
    """For every place and every state that can stand before it: ways there, and ways on from each state after it."""
    places, found = world.places(), []
    reached: dict[State | None, list[Op]] = {None: []}
    for index, (layer, boundary) in enumerate(places):
        following: dict[State | None, list[Op]] = {}
        for state, beginning in reached.items():
            for op, after in moves(world, layer, boundary, state).items():
                following.setdefault(after, [*beginning, op])
                pair = (beginning, ending(world, index + 1, after))
                if pair not in found and len(pair[0]) + len(pair[1]) == len(places) - 1:
                    found.append(pair)
        reached = following
    return found


def ending(world: World, index: int, state: State) -> list[Op]:
    """Some way from a state to the head; shorter than it should be where there is none."""
    ops = []
    for layer, boundary in world.places()[index:]:
        for op, after in moves(world, layer, boundary, state).items():
            ops.append(op)
            state = after
            break
    return ops


def test_the_rules_know_every_boundary() -> None:
    assert [boundary for _, boundary in World(tp=2, num_layers=1).places()] == ["embed_out", *IN_LAYER, "head_in"]
