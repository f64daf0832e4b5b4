"""Several residual streams: sums stay one stream wide, what lies between layers does not."""

from __future__ import annotations

import pytest

from commplan.planner.cost.memory import MemoryCosts
from commplan.planner.cost.op_costs import OpCosts
from commplan.planner.descriptions.loader import load_model
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.layout import LayerShape, Parallelism, State, apply
from commplan.planner.strategy.ops import Op

from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model

ROWS = 1024
WHOLE, MIXED = State("replicated", "replicated"), State("replicated", "token_sharded")


def streams_model(streams: int | None) -> dict[str, object]:
    return dense_model() | ({} if streams is None else {"hc_mult": streams})


def terms_of(folder, streams, boundary, op, before):
    """(costs, terms by category) of an op between its layouts."""
    setup = folder.setup(streams_model(streams), Machine(), tp=4)
    shape, costs = setup.model.layer_shape(0, setup.parallelism), OpCosts(setup, "prefill")
    after = apply(boundary, op, before, shape, setup.parallelism)
    found = {}
    for term in costs.terms(boundary, op, before, after, shape):
        found.setdefault(term.category, []).append(term)
    return costs, found


def bytes_of(folder, streams, category, op, before):
    costs, found = terms_of(folder, streams, "attn_out", op, before)
    return sum(costs.estimate(term, ROWS).wire_bytes for term in found.get(category, []))


def test_a_sum_of_four_streams_is_one_stream_wide(folder):
    """A block's output is hidden wide and partial before it is mixed into the streams."""
    for op in (Op("all_reduce"), Op("reduce_scatter")):
        assert bytes_of(folder, 4, "wire", op, WHOLE) == bytes_of(folder, None, "wire", op, WHOLE) > 0


def test_a_gathered_residual_is_as_many_streams_wide(folder):
    op = Op("all_reduce", residual="gather")
    one = bytes_of(folder, None, "residual", op, MIXED)
    assert bytes_of(folder, 4, "residual", op, MIXED) == pytest.approx(4 * one)
    assert one == pytest.approx(3 / 4 * ROWS * HIDDEN_SIZE * 2)


def test_a_norm_passes_over_all_streams_and_a_shard_over_its_rows_alone(folder):
    def norm_us(streams, op):
        costs, found = terms_of(folder, streams, "attn_out", op, WHOLE)
        estimates = [costs.estimate(term, 64 * ROWS) for term in found["norm"]]
        return sum(estimate.time_us for estimate in estimates)

    plain, wide = norm_us(None, Op("all_reduce")), norm_us(4, Op("all_reduce"))
    # bytes an element: 8 of an add and a norm; 18 to mix in, 10 to mix out, 4 of the norm; the projection besides
    assert wide > 3.5 * plain
    assert norm_us(4, Op("reduce_scatter")) < wide / 3


def test_the_residual_takes_the_memory_of_its_streams(folder):
    held = []
    for streams in (None, 4):
        setup = folder.setup(streams_model(streams), Machine(), tp=4)
        shape = setup.model.layer_shape(0, setup.parallelism)
        held.append(MemoryCosts(setup).peak_bytes("attn_out", Op("all_reduce"), WHOLE, WHOLE, shape, ROWS))
    assert held[1] - held[0] == 3 * ROWS * HIDDEN_SIZE * 2


def test_no_plan_folds_streams_into_a_sum_nor_has_a_kernel_norm_behind_it(folder):
    setup = folder.setup(streams_model(4), Machine(), tp=4)
    edges = ModePlanner(setup, "prefill").graph().edges
    assert not [edge for edge in edges if edge.op.residual == "fold"]
    assert not [edge for edge in edges if edge.op.impl and setup.executor.impls[edge.op.impl].fuses_norm]
    one = ModePlanner(folder.setup(streams_model(None), Machine(), tp=4), "prefill").graph().edges
    assert [edge for edge in one if edge.op.residual == "fold"]


def test_blocks_of_attention_residuals_are_streams_with_the_embedding():
    model = load_model("kimi-k3")
    assert model.residual_streams == 9  # 93 layers by 12 are 8 blocks
    assert model.layer_shape(0, Parallelism(1)).streams == 9


def test_a_shape_has_one_stream_unless_it_says_so():
    assert LayerShape().streams == load_model("qwen3-32b").residual_streams == 1
