"""The rules of the layout algebra, one by one."""

from __future__ import annotations

import pytest

from commplan.planner.strategies import strategies
from commplan.planner.strategy.layout import (
    ALL_TO_ALL,
    DP_LOCAL,
    REPLICATED,
    TOKEN_SHARDED,
    IllegalOpError,
    LayerShape,
    Parallelism,
    State,
    apply,
    numerics_class,
    with_group,
)
from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.ops import FUSED, NONE, SLICE, Op

from .every_layout import PARALLELISMS, SHAPES, WORLDS, legal, reachable, world_id

worlds = pytest.mark.parametrize("world", WORLDS, ids=world_id)
TP4, DP2, DP4 = Parallelism(4), Parallelism(4, 2), Parallelism(4, 4)
DENSE, LATENT, EXPERTS = LayerShape(), LayerShape(has_latent=True), LayerShape(all_to_all=True)


def refusal(boundary: str, op: Op, state: State | None, shape: LayerShape = DENSE, p: Parallelism = TP4) -> str:
    with pytest.raises(IllegalOpError) as refused:
        apply(boundary, op, state, shape, p)
    return str(refused.value)


def both(layout: str, fused: bool = False) -> State:
    return State(layout, layout, fused)


# ---- residual ----------------------------------------------------------------------------------------------


@worlds
def test_int8_never_carries_the_residual(world):
    for boundary, states in reachable(*world).items():
        for state in states:
            folds = [op for op in legal(boundary, state, *world) if op.residual == "fold"]
            assert not [op for op in folds if op.kind.is_quantized]


def test_a_sharded_residual_is_folded_into_a_sum_or_gathered_and_said_so():
    state = State(REPLICATED, TOKEN_SHARDED)
    assert "fold" in refusal("attn_out", Op("all_reduce"), state)
    for rule in ("fold", "gather"):
        assert apply("attn_out", Op("all_reduce", residual=rule), state, DENSE, TP4) == both(REPLICATED)
    int8 = Op("int8_all_reduce", algorithm="gather", residual="fold")
    assert "quantise the folded residual" in refusal("attn_out", int8, state)


def test_several_streams_are_gathered_and_never_folded_into_a_sum_of_one():
    streams, state = LayerShape(streams=4), State(REPLICATED, TOKEN_SHARDED)
    assert "4 streams" in refusal("attn_out", Op("all_reduce", residual="fold"), state, streams)
    assert "fold" not in refusal("attn_out", Op("all_reduce"), state, streams)
    assert apply("attn_out", Op("all_reduce", residual="gather"), state, streams, TP4) == both(REPLICATED)


def test_a_replicated_residual_is_sliced_for_nothing():
    assert apply("mlp_out", Op("reduce_scatter"), both(REPLICATED), DENSE, TP4) == both(TOKEN_SHARDED)


@pytest.mark.parametrize("rule", ["fold", "gather"])
def test_a_residual_rule_without_need_is_refused(rule):
    assert "leave `residual` out" in refusal("attn_out", Op("all_reduce", residual=rule), both(REPLICATED))


@worlds
def test_a_reduce_scatter_needs_no_residual_rule_since_nothing_is_finer_than_a_shard(world):
    assert "residual" not in KINDS["reduce_scatter"].parameters
    for boundary in ("attn_out", "mlp_out"):
        for state in reachable(*world)[boundary]:
            for op, after in legal(boundary, state, *world).items():
                if op.name == "reduce_scatter":
                    assert after == both(TOKEN_SHARDED)


@pytest.mark.parametrize("rule", ["fold", "gather"])
def test_an_embedding_has_no_residual_to_fold_or_gather(rule):
    refusal("embed_out", Op("all_reduce", residual=rule), None)


# ---- fused ops ---------------------------------------------------------------------------------------------


@worlds
def test_behind_an_op_that_spans_two_boundaries_stands_fused_and_nowhere_else(world):
    """But for the head: it is no attention whose rows the op could have laid out, so they are gathered."""
    p, shape = world
    for boundary, states in reachable(p, shape).items():
        for state in states:
            spanned = state is not None and state.fused and boundary != "head_in"
            for op in legal(boundary, state, p, shape):
                assert (op == FUSED) == spanned, (boundary, str(op), state)


def test_a_fused_pair_needs_attention_dp():
    assert "attn_dp is 1" in refusal("attn_out", Op("all_reduce_all_gather"), both(REPLICATED))
    assert "attn_dp is 1" in refusal("mlp_out", Op("reduce_scatter_all_reduce"), both(REPLICATED))


def test_a_fused_gather_has_no_place_before_experts_that_take_shards():
    op = Op("all_reduce_all_gather", residual="fold")
    assert "takes token shards" in refusal("attn_out", op, both(DP_LOCAL), EXPERTS, DP2)


# ---- in ops ------------------------------------------------------------------------------------------------


def test_latents_travel_only_from_shards_of_a_model_that_has_them():
    latent = Op("latent_all_gather")
    assert apply("attn_in", latent, both(TOKEN_SHARDED), LATENT, TP4) == State(REPLICATED, TOKEN_SHARDED)
    assert "q_lora_rank" in refusal("attn_in", latent, both(TOKEN_SHARDED))
    assert "token_sharded rows" in refusal("attn_in", latent, both(REPLICATED), LATENT)
    assert "shard itself" in refusal("attn_in", latent, both(TOKEN_SHARDED), LATENT, DP4)


@worlds
def test_rows_that_lie_right_are_left_alone(world):
    p, shape = world
    for boundary in ("attn_in", "mlp_in", "head_in"):
        for state in reachable(p, shape)[boundary]:
            for op, after in legal(boundary, state, p, shape).items():
                if not state.fused:
                    assert (op == NONE) == (after.hidden == state.hidden), (boundary, str(op))
                    assert after.residual == state.residual


def test_experts_that_take_shards_get_them_by_a_slice_and_leave_complete_shards():
    p = Parallelism(4, 1, 4, ALL_TO_ALL)
    assert apply("mlp_in", SLICE, both(REPLICATED), EXPERTS, p) == State(TOKEN_SHARDED, REPLICATED)
    assert apply("mlp_out", NONE, State(TOKEN_SHARDED, REPLICATED), EXPERTS, p) == both(TOKEN_SHARDED)
    assert "complete" in refusal("mlp_out", Op("reduce_scatter"), State(TOKEN_SHARDED, REPLICATED), EXPERTS, p)


# ---- degenerate groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_one_device_runs_nothing(shape):
    for boundary, states in reachable(Parallelism(1), shape).items():
        for state in states:
            assert set(legal(boundary, state, Parallelism(1), shape)) == {NONE}


def test_a_dp_group_of_one_rank_has_nothing_to_sum_at_attn_out():
    assert apply("embed_out", NONE, None, DENSE, DP4) == both(TOKEN_SHARDED)
    assert set(legal("attn_out", both(TOKEN_SHARDED), DP4, DENSE)) == {NONE}


def test_a_dp_group_of_one_rank_gathers_and_scatters_over_tp():
    gathered = apply("mlp_in", Op("all_gather"), both(TOKEN_SHARDED), DENSE, DP4)
    assert gathered == State(REPLICATED, TOKEN_SHARDED)
    assert with_group("mlp_in", Op("all_gather"), both(TOKEN_SHARDED), DENSE, DP4).group == "tp"
    assert apply("mlp_out", Op("reduce_scatter"), gathered, DENSE, DP4) == both(TOKEN_SHARDED)


def test_a_dp_group_of_one_rank_has_no_pair_to_fuse():
    op = Op("reduce_scatter_all_reduce", residual="fold")
    assert "one rank per DP group" in refusal("mlp_out", op, State(REPLICATED, TOKEN_SHARDED), DENSE, DP4)


# ---- numerics, rows, offers --------------------------------------------------------------------------------


def test_a_fold_or_a_wider_sum_changes_the_order_of_additions():
    plain = Op("all_reduce")
    assert numerics_class("attn_out", plain, TP4) == "exact"
    assert numerics_class("attn_out", Op("all_reduce", residual="fold"), TP4) == "reordered"
    assert numerics_class("attn_out", Op("all_reduce", residual="gather"), TP4) == "exact"
    assert numerics_class("attn_out", Op("all_reduce", group="tp"), DP2) == "reordered"
    assert numerics_class("mlp_out", Op("all_reduce", group="tp"), DP2) == "exact"


@pytest.mark.parametrize("p", PARALLELISMS)
def test_shards_are_equal_and_hold_all_rows(p):
    for tokens in range(1, 4 * p.tp + 2):
        shard = p.rows(tokens, TOKEN_SHARDED)
        assert (shard - 1) * p.tp < tokens <= shard * p.tp
        assert p.rows(tokens, DP_LOCAL) == shard * p.attn_tp
        assert p.rows(tokens, REPLICATED) == tokens


def test_every_legal_op_is_offered_by_some_strategy():
    missing = set()
    for p, shape in WORLDS:
        for boundary, states in reachable(p, shape).items():
            for state in states:
                may = set(legal(boundary, state, p, shape))
                offered = {o.op for s in strategies().values() for o in s.offers.get(boundary, ())}
                unnamed = {with_group(boundary, op, state, shape, p) for op in may & offered}
                missing |= {op for op in may if with_group(boundary, op, state, shape, p) not in unnamed}
    assert not missing
