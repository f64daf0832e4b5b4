"""What an op brings with it: bytes on the wire, rows under the norm, copies that pad."""

from __future__ import annotations

import pytest

from commplan.planner.cost.op_costs import OpCosts
from commplan.planner.cost.terms import Term
from commplan.planner.executors import load_executor
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.layout import LayerShape, State, apply
from commplan.planner.strategy.ops import Op

from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model, latent_model

ROWS = 1024
REPLICATED, SHARDED = State("replicated", "replicated"), State("token_sharded", "token_sharded")
MIXED = State("replicated", "token_sharded")


def terms_of(costs: OpCosts, setup, boundary: str, op: Op, before: State) -> dict[str, list[Term]]:
    after = apply(boundary, op, before, LayerShape(), setup.parallelism)
    found: dict[str, list[Term]] = {}
    for term in costs.terms(boundary, op, before, after, LayerShape()):
        found.setdefault(term.category, []).append(term)
    return found


@pytest.fixture
def tp4(folder):
    setup = folder.setup(dense_model(), Machine(), tp=4)
    costs = OpCosts(setup, "prefill")
    return lambda boundary, op, before: terms_of(costs, setup, boundary, op, before), costs


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_int8_gather_receives_n_minus_1_messages_and_two_shot_what_a_ring_does(folder, tp):
    setup = folder.setup(dense_model(), Machine(), tp=tp)
    costs = OpCosts(setup, "prefill")
    message = ROWS * (HIDDEN_SIZE + 4)  # one byte per element, one fp32 scale per row
    received = {}
    for algorithm in ("gather", "two_shot"):
        wire = terms_of(costs, setup, "attn_out", Op("int8_all_reduce", algorithm=algorithm), REPLICATED)["wire"]
        received[algorithm] = sum(costs.estimate(term, ROWS).wire_bytes for term in wire)
    plain = terms_of(costs, setup, "attn_out", Op("all_reduce"), REPLICATED)["wire"]
    as_it_is = sum(costs.estimate(term, ROWS).wire_bytes for term in plain)
    assert received["gather"] == pytest.approx((tp - 1) * message)
    assert received["two_shot"] == pytest.approx(2 * (tp - 1) / tp * message)
    assert as_it_is == pytest.approx(2 * (tp - 1) / tp * ROWS * HIDDEN_SIZE * 2)
    assert (received["gather"] < as_it_is) == (tp < 4)
    assert received["two_shot"] < 0.51 * as_it_is


def test_latents_travel_at_their_own_width(folder):
    planner = ModePlanner(folder.setup(latent_model(), Machine(), tp=4), "prefill")
    wire = {
        edge.op.name: sum(planner.costs.estimate(term, ROWS).wire_bytes for term in edge.terms)
        for edge in planner.graph().edges
        if edge.boundary == "attn_in"
    }
    assert wire["latent_all_gather"] / wire["all_gather"] == pytest.approx((96 + 32 + 16) / HIDDEN_SIZE)


def test_the_sparse_indexer_of_v3_2_widens_the_latents(folder):
    model = latent_model(index_head_dim=32, index_n_heads=8, index_topk=64, architecture="DeepseekV32ForCausalLM")
    assert folder.setup(model, tp=4).model.latent_width == 96 + 32 + 16 + 32 + 8


def test_q_a_and_kv_a_shrink_with_the_shard_but_their_norms_do_not(folder):
    planner = ModePlanner(folder.setup(latent_model(), Machine(kernel_us=0.001), tp=4), "prefill")
    gemms, norms = {}, {}
    for edge in planner.graph().edges:
        if edge.boundary == "attn_in":
            name, many = edge.op.name, 64 * ROWS
            gemms[name] = [planner.costs.estimate(t, many).total_us for t in edge.terms if t.label == "q_a and kv_a"]
            norms[name] = [planner.costs.estimate(t, many).total_us for t in edge.terms if t.category == "norm"]
    assert sum(gemms["all_gather"]) / sum(gemms["latent_all_gather"]) == pytest.approx(4, rel=0.1)
    assert norms["all_gather"] == norms["latent_all_gather"] == norms["none"]


def test_the_norm_after_a_reduce_scatter_runs_on_the_shard(tp4):
    terms, costs = tp4
    whole, part = (terms("mlp_out", Op(name), REPLICATED)["norm"] for name in ("all_reduce", "reduce_scatter"))
    times = [sum(costs.estimate(t, 4096 * ROWS).total_us for t in norm) for norm in (whole, part)]
    assert times[0] / times[1] == pytest.approx(4, rel=0.01)


def test_a_fold_adds_the_shard_before_the_sum_and_a_gather_sends_the_residual(tp4):
    terms, costs = tp4
    fold = terms("attn_out", Op("all_reduce", residual="fold"), MIXED)["residual"]
    gather = terms("attn_out", Op("all_reduce", residual="gather"), MIXED)["residual"]
    assert sum(costs.estimate(t, ROWS).wire_bytes for t in fold) == 0
    assert [t.rows for t in fold] == ["shard"]
    assert sum(costs.estimate(t, ROWS).wire_bytes for t in gather) == pytest.approx(3 / 4 * ROWS * HIDDEN_SIZE * 2)


def test_rows_are_copied_into_full_shards_only_where_tp_does_not_divide_them(tp4):
    terms, costs = tp4
    (pad,) = terms("attn_out", Op("reduce_scatter"), SHARDED)["padding"]
    assert costs.estimate(pad, ROWS).total_us == 0
    assert costs.estimate(pad, ROWS - 1).total_us > 0
    assert "padding" not in terms("attn_out", Op("int8_all_reduce", algorithm="two_shot"), REPLICATED)


def test_a_residual_that_is_whole_is_cut_to_shards_by_a_copy_of_the_last_one_where_that_is_not_full(tp4):
    terms, costs = tp4
    whole, sharded = (terms("mlp_out", Op("reduce_scatter"), before)["padding"] for before in (REPLICATED, SHARDED))
    (cut,) = set(whole) - set(sharded)
    assert costs.estimate(cut, ROWS).total_us == 0
    copied = costs.estimate(cut, ROWS - 1)
    assert copied.launch_us == 2.0  # one launch
    assert copied.time_us * 800e3 == pytest.approx(
        ROWS / 4 * HIDDEN_SIZE * 4, rel=0.01
    )  # read and written, at 800 GB/s
    assert "padding" not in terms("mlp_out", Op("all_reduce"), REPLICATED)


@pytest.mark.parametrize("algorithm", ["gather", "two_shot"])
def test_int8_pays_for_its_passes_over_memory(tp4, algorithm):
    """Every kernel that the executor's file lists, at 2 us a launch."""
    terms, costs = tp4
    found = terms("attn_out", Op("int8_all_reduce", algorithm=algorithm), REPLICATED)["quantize"]
    steps = {"gather": ("quantize", "dequantize_sum"), "two_shot": ("quantize", "reduce_shard", "dequantize")}
    listed = load_executor("transformers").kernels.wires["int8"]
    launches = sum(len(getattr(listed, step)["default"]) for step in steps[algorithm])
    assert launches > 4
    assert sum(costs.estimate(t, 1).total_us for t in found) == pytest.approx(2 * launches, rel=0.05)


def test_the_head_gathers_only_rows_that_need_logits(tp4):
    terms, costs = tp4
    (gather,) = terms("head_in", Op("all_gather"), SHARDED)["wire"]
    requests = ROWS // 64  # one sequence of 64 tokens each
    assert costs.estimate(gather, ROWS).wire_bytes == pytest.approx(3 / 4 * requests * HIDDEN_SIZE * 2)
