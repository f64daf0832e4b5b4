"""Ranks of a stage spread evenly over nodes, whatever their number; what cannot be is refused with the reason."""

from __future__ import annotations

import pytest

from commplan.planner.cost.links import placement
from commplan.planner.descriptions.placement import nodes_needed, ranks_per_node, stage_boundaries
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.layout import Parallelism

from ..tiny_setups import Machine, dense_model, latent_model

MODEL = dense_model(4) | {"num_attention_heads": 48, "num_key_value_heads": 48, "intermediate_size": 720}


def split(folder, nodes: int = 1, each: int = 8, model=MODEL, **parallelism):
    machine = Machine(devices_per_node=each, num_nodes=nodes)
    return folder.setup(model, machine, parallelism=parallelism, executor="plan_only")


@pytest.mark.parametrize(
    ("tp", "nodes", "inside"),
    [(6, 1, 6), (6, 2, 6), (8, 2, 8), (12, 2, 6), (16, 2, 8), (24, 3, 8), (24, 4, 8), (12, 4, 6)],
)
def test_groups_of_any_size_are_accepted_and_lie_evenly_on_the_fewest_nodes(folder, tp, nodes, inside):
    setup = split(folder, nodes, tp=tp)
    where = placement("tp", setup.parallelism, setup.hardware)
    assert (where.per_node, where.size) == (inside, tp)


def test_ranks_that_fewer_nodes_cannot_share_evenly_take_more_nodes(folder):
    """10 ranks on nodes of 4: neither 3 nor 4 nodes, but 5 of 2."""
    hardware = split(folder, 5, 4, tp=1).hardware
    assert ranks_per_node(10, hardware) == 2
    assert ranks_per_node(11, hardware) is None


def refused(folder, nodes: int, each: int = 8, model=MODEL, **parallelism) -> InputError:
    with pytest.raises(InputError) as error:
        split(folder, nodes, each, model, **parallelism)
    return error.value


def test_ranks_that_no_nodes_share_evenly_are_refused_with_those_that_do(folder):
    error = refused(folder, 4, 4, tp=15)
    assert (error.field, error.value) == ("parallelism.tp", 15)
    assert "15 ranks do not spread evenly over 4 to 4 nodes of 4 devices" in error.message
    assert error.message.endswith("accepted: 1, 2, 3, 4, 6, 8, 12, 16")


def test_a_tp_that_heads_do_not_allow_names_those_that_they_and_all_else_do(folder):
    """16 divides the heads of the attention, and not the MLP: it is not accepted."""
    error = refused(folder, 1, 16, MODEL | {"intermediate_size": 24}, tp=9)
    assert error.message.endswith("does not divide num_attention_heads 48; accepted: 1, 2, 3, 4, 6, 8, 12")


def test_dp_groups_lie_inside_nodes_or_fill_them(folder):
    """24 ranks on 3 nodes of 8: groups of 6 would lie 6, 2 + 4, 4 + 2, 6."""
    error = refused(folder, 3, tp=24, attn_dp=4)
    assert (error.field, error.value) == ("parallelism.attn_dp", 4)
    assert error.message.endswith("accepted: 1, 3, 6, 12, 24")
    for attn_dp in (3, 6, 12, 24):
        setup = split(folder, 3, tp=24, attn_dp=attn_dp)
        ranks = Parallelism(24, attn_dp)
        groups = {
            "tp": [range(24)],
            "attn_tp": [range(g * ranks.attn_tp, (g + 1) * ranks.attn_tp) for g in range(attn_dp)],
            "attn_dp": [range(j, 24, ranks.attn_tp) for j in range(ranks.attn_tp)],
        }
        for name, each in groups.items():
            where = placement(name, setup.parallelism, setup.hardware)
            for group in each:
                nodes = [rank // 8 for rank in group]
                assert {nodes.count(node) for node in nodes} == {where.per_node}
                assert (len(set(nodes)), len(group)) == (where.num_nodes, where.size)


# ---- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tp", "pp", "nodes", "needed", "boundaries"),
    [
        (4, 2, 1, 1, (1, 0)),
        (2, 4, 1, 1, (3, 0)),
        (4, 4, 2, 2, (2, 1)),
        (8, 2, 2, 2, (0, 1)),
        (6, 2, 2, 2, (0, 1)),
        (12, 2, 4, 4, (0, 1)),
        (2, 3, 2, 1, (2, 0)),
    ],
)
def test_stages_share_a_node_while_there_is_room(folder, tp, pp, nodes, needed, boundaries):
    setup = split(folder, nodes, tp=tp, pp=pp)
    assert nodes_needed(setup.parallelism, setup.hardware) == needed
    assert stage_boundaries(setup.parallelism, setup.hardware) == boundaries


def test_stages_that_nodes_do_not_hold_are_refused_with_how_many_they_do(folder):
    """15 ranks are fewer than 16 devices, but a node holds two stages of 3."""
    error = refused(folder, 2, model=MODEL | {"num_hidden_layers": 8}, tp=3, pp=5)
    assert (error.field, error.value) == ("parallelism.pp", 5)
    assert "take 3 nodes (a node of 8 devices holds 2), and invented has 2; accepted: up to 4" in error.message
    wide = refused(folder, 3, tp=12, pp=2)
    assert "take 4 nodes (each spans 2 nodes), and invented has 3; accepted: up to 1" in wide.message


def test_more_stages_than_layers_are_refused(folder):
    error = refused(folder, 1, tp=1, pp=5)
    assert (error.field, error.message) == ("parallelism.pp", "more stages than the 4 layers")


def test_a_stack_for_timing_has_one_stage(folder):
    with pytest.raises(InputError, match="runs in one stage") as error:
        folder.setup(MODEL, parallelism={"tp": 2, "pp": 2}, executor="plan_only", loaded_layers=2)
    assert error.value.field == "loaded_layers"


# ---- experts ---------------------------------------------------------------------------------------------------------


def test_experts_over_some_ranks_are_each_split_over_the_rest(folder):
    assert split(folder, model=latent_model(), tp=4, ep=2).parallelism.ep == 2
    narrow = latent_model(moe_intermediate_size=6)
    error = refused(folder, 1, model=narrow, tp=4, ep=1)
    assert (error.field, error.value) == ("parallelism.ep", 1)
    assert "split over tp / ep = 4 ranks, which do not divide moe_intermediate_size 6" in error.message
    assert error.message.endswith("accepted: 2, 4")


def test_a_row_goes_to_one_rank_so_an_all_to_all_has_no_split_experts(folder):
    error = refused(folder, 1, model=latent_model(), tp=4, ep=2, moe_backend="all_to_all")
    assert (error.field, error.value) == ("parallelism.ep", 2)
    assert "ep must equal tp 4" in error.message
