"""The validator accepts exactly what a second statement of the rules accepts, over random worlds, plans and edits."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.errors import InputError
from commplan.planner.strategy_file import dump, parse, problems

from ..random_machines import examples
from .rules import IN_LAYER, Op, World, is_legal, moves
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
def legal_plans(draw: st.DrawFn, world: World) -> list[Op] | None:
    """A random walk over the moves; None where it ends in a dead end."""
    state, ops = None, []
    for layer, boundary in world.places():
        found = moves(world, layer, boundary, state)
        if not found:
            return None
        op = draw(st.sampled_from(sorted(found, key=str)))
        ops.append(op)
        state = found[op]
    return ops


def accepted(text: str) -> bool:
    try:
        return not list(problems(parse(text)))
    except InputError:
        return False


@examples(250)
@given(st.data())
def test_every_plan_that_the_rules_allow_is_accepted(data: st.DataObject) -> None:
    world = data.draw(worlds())
    ops = data.draw(legal_plans(world))
    if ops is None:
        return
    text = text_of(world, ((1, 8), ops))
    assert list(problems(parse(text))) == []
    assert parse(dump(parse(text))) == parse(dump(parse(dump(parse(text)))))


@examples(400)
@given(st.data())
def test_a_plan_with_one_op_exchanged_is_accepted_if_and_only_if_the_rules_allow_it(data: st.DataObject) -> None:
    world = data.draw(worlds())
    ops = data.draw(legal_plans(world))
    if ops is None:
        return
    place = data.draw(st.integers(0, len(ops) - 1))
    ops[place] = data.draw(st.sampled_from(ALL_OPS))
    assert accepted(text_of(world, ((1, 8), ops))) == is_legal(world, ops), (world, world.places()[place], ops)


@examples(200)
@given(st.data())
def test_a_plan_made_for_another_world_is_accepted_if_and_only_if_the_rules_allow_it(data: st.DataObject) -> None:
    """Another split, other experts, no latents, stricter numerics: the ops stay, what they mean does not."""
    world, other = data.draw(worlds()), data.draw(worlds())
    ops = data.draw(legal_plans(world))
    if ops is None:
        return
    experts = frozenset(layer for layer in other.moe_layers if layer < world.num_layers)
    moved = replace(other, num_layers=world.num_layers, moe_layers=experts)
    assert accepted(text_of(moved, ((1, 8), ops))) == is_legal(moved, ops), (moved, ops)


def test_every_op_at_every_boundary_of_small_worlds() -> None:
    """Exhaustive where it can be: all ops at each place, after each legal beginning of up to one layer."""
    for world in (
        World(tp=4, num_layers=1, latents=True),
        World(tp=4, num_layers=1, moe_layers=frozenset({0}), all_to_all=True),
        World(tp=4, num_layers=1, attn_dp=2),
        World(tp=4, num_layers=1, attn_dp=4),
        World(tp=1, num_layers=1),
    ):
        for beginning, ending in completions(world):
            for op in ALL_OPS:
                ops = [*beginning, op, *ending]
                assert accepted(text_of(world, ((1, 8), ops))) == is_legal(world, ops), (world, ops)


def completions(world: World) -> list[tuple[list[Op], list[Op]]]:
    """For every place and every state that can stand before it: a way there, and a way on from the first legal op."""
    places = world.places()
    found = []
    states: dict[object, list[Op]] = {None: []}
    for index, (layer, boundary) in enumerate(places):
        following: dict[object, list[Op]] = {}
        for state, ops in states.items():
            for op, after in moves(world, layer, boundary, state).items():  # type: ignore[arg-type]
                found.append((ops, ending(world, index + 1, after)))
                following.setdefault(after, [*ops, op])
        states = following
    return [
        pair for index, pair in enumerate(found) if pair not in found[:index] and len(sum(pair, [])) == len(places) - 1
    ]


def ending(world: World, index: int, state: object) -> list[Op]:
    ops = []
    for layer, boundary in world.places()[index:]:
        found = moves(world, layer, boundary, state)  # type: ignore[arg-type]
        if not found:
            return []
        op, state = next(iter(found.items()))
        ops.append(op)
    return ops


def test_the_rules_know_every_boundary() -> None:
    assert [boundary for _, boundary in World(tp=2, num_layers=1).places()] == ["embed_out", *IN_LAYER, "head_in"]
