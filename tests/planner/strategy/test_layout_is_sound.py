"""Every legal op leaves the rows that its layout promises: simulated ranks compute what one device would."""

from __future__ import annotations

import pytest

from commplan.planner.strategy.layout import group_of

from .every_layout import WORLDS, legal, reachable, world_id
from .simulated_ranks import Ranks, norm, share

worlds = pytest.mark.parametrize("world", WORLDS, ids=world_id)


@worlds
def test_a_gather_or_slice_gives_the_next_block_the_rows_it_wants(world):
    p, shape = world
    ranks = Ranks(p)
    values = {row: 17 * row + 5 for row in range(p.tp)}
    for boundary in ("attn_in", "mlp_in", "head_in"):
        wanted = {"attn_in": p.attention_layout, "mlp_in": shape.mlp_layout(), "head_in": "replicated"}[boundary]
        for state in reachable(p, shape)[boundary]:
            for op, after in legal(boundary, state, p, shape).items():
                group = group_of(boundary, op, state, shape, p)
                got = ranks.into_block(op, group, ranks.spread(values, state.hidden), after)
                assert got == ranks.spread(values, wanted), (boundary, str(op), state)


@worlds
def test_a_sum_carries_every_share_and_the_residual_exactly_once(world):
    p, shape = world
    ranks = Ranks(p)
    inputs = {row: 17 * row + 5 for row in range(p.tp)}
    old = {row: 1000 * row + 1 for row in range(p.tp)}
    for boundary in ("embed_out", "attn_out", "mlp_out"):
        partials, block = shares(ranks, boundary, shape.all_to_all, inputs)
        for state in reachable(p, shape)[boundary]:
            total = {row: block[row] + (old[row] if state else 0) for row in block}
            for op, after in legal(boundary, state, p, shape).items():
                group = group_of(boundary, op, state, shape, p)
                before = ranks.spread(old, state.residual) if state else None
                hidden, residual = ranks.out_of_block(op, group, partials, before, state, after)
                assert residual == ranks.spread(total, after.residual), (boundary, str(op), state)
                normed = {row: norm(value) for row, value in total.items()}
                assert hidden == ranks.spread(normed, after.hidden), (boundary, str(op), state)


def shares(ranks: Ranks, boundary: str, all_to_all: bool, inputs: dict[int, int]) -> tuple[list, dict[int, int]]:
    """What each rank holds of a block's output, and the sum that one device would make."""
    p = ranks.p
    if boundary == "mlp_out" and all_to_all:
        whole = {row: sum(share(rank, inputs[row]) for rank in range(p.tp)) for row in inputs}
        return ranks.spread(whole, "token_sharded"), whole
    if boundary == "mlp_out":
        sharing, layout = p.tp, "replicated"
    else:
        sharing, layout = p.attn_tp, p.attention_layout
    partials = [{row: share(rank % sharing, inputs[row]) for row in ranks.rows(layout, rank)} for rank in range(p.tp)]
    return partials, {row: sum(share(rank, inputs[row]) for rank in range(sharing)) for row in inputs}


@worlds
def test_every_reachable_state_leads_on_to_the_end(world):
    p, shape = world
    for boundary, states in reachable(p, shape).items():
        for state in states:
            assert legal(boundary, state, p, shape), (boundary, state)


@worlds
def test_no_state_carries_a_partial_sum_or_rows_that_differ_between_the_streams(world):
    p, shape = world
    for state in reachable(p, shape)["attn_in"] - {None}:
        assert state.hidden == state.residual
        assert state.hidden in ("replicated", "dp_local", "token_sharded")
