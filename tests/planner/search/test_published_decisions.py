"""What has been measured and published elsewhere, the planner decides the same way, by about as much."""

from __future__ import annotations

import pytest

from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.search.graph import Plan
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategies import strategies
from commplan.planner.strategy.layout import LAYER_BOUNDARIES

from ..named_plans import BY_LIBRARIES, named, ops_at, parts_us, planner_of

DEPLOYMENTS = preset_names("deployments")


def int8(algorithm: str) -> dict[str, dict[str, str]]:
    return {"int8_all_reduce": {"algorithm": algorithm}}


def is_plain(plan: Plan) -> bool:
    return {edge.op.name for edge in plan.edges} <= {"all_reduce", "none"}


# ---- INT8 all-reduce on a pair of Ascend A2 devices (sgl-project/sglang#20520) -----------------------------


@pytest.mark.parametrize("algorithm", ["gather", "two_shot"])
def test_int8_makes_a_16k_prefill_on_an_a2_pair_somewhat_faster(algorithm):
    planner = planner_of("qwen3-32b-a2-tp2", "prefill")
    plan = named(planner, 16384, embed_out="all_reduce", attn_out=int8(algorithm), mlp_out=int8(algorithm))
    assert ops_at(plan, "mlp_out") == {f"int8_all_reduce(algorithm={algorithm})": 64}
    gain = planner.step_us(planner.plain(16384), 16384) / planner.step_us(plan, 16384)
    assert 1.03 <= gain <= 1.15


def test_int8_is_chosen_for_a_16k_prefill_on_an_a2_pair():
    plan = planner_of("qwen3-32b-a2-tp2", "prefill").best(16384)
    for boundary in ("attn_out", "mlp_out"):
        quantised = sum(n for op, n in ops_at(plan, boundary).items() if op.startswith("int8_all_reduce"))
        assert quantised >= 63  # the last mlp_out may feed the head, which wants few rows


def test_plain_all_reduce_is_chosen_for_decode_on_an_a2_pair():
    planner = planner_of("qwen3-32b-a2-tp2", "decode")
    for tokens in range(1, 65):
        assert is_plain(planner.best(tokens)), tokens


# ---- late gather of latents on eight H20 (sgl-project/sglang#10568) ----------------------------------------

FOLD = {"all_reduce": {"residual": "fold"}}
LATE_GATHER = {
    "embed_out": "reduce_scatter",
    "attn_in": "latent_all_gather",
    "attn_out": FOLD,
    "mlp_out": "reduce_scatter",
    "head_in": "all_gather",
}
TOKENS = 16384


@pytest.fixture(scope="module")
def h20() -> ModePlanner:
    return planner_of("deepseek-r1-h20-tp8", "prefill")


@pytest.fixture(scope="module")
def late(h20) -> Plan:
    return named(h20, TOKENS, own_kernels=False, **LATE_GATHER)


@pytest.mark.parametrize(
    ("category", "least", "most"),
    [("wire", 0.885, 0.985), ("latent_gemm", 0.107, 0.147), ("norm", 0.30, 0.60)],
)
def test_late_gather_saves_on_h20_what_was_measured(h20, late, category, least, most):
    before, after = (parts_us(h20, plan, TOKENS)[category] for plan in (h20.plain(TOKENS), late))
    assert least <= after / before <= most


def test_late_gather_makes_a_16k_prefill_on_h20_as_much_faster_as_was_measured(h20, late):
    before, after = (h20.step_us(plan, TOKENS) for plan in (h20.plain(TOKENS), late))
    assert 1.06 <= before / after <= 1.20
    assert 82_000 <= before - after <= 153_000


def test_late_gather_is_chosen_for_a_16k_prefill_on_h20(h20, late):
    assert [str(edge.op) for edge in h20.best(TOKENS, BY_LIBRARIES).edges] == [str(edge.op) for edge in late.edges]
    assert ops_at(late, "attn_in") == {"latent_all_gather": 61}
    assert ops_at(late, "attn_out") == {"all_reduce(residual=fold)": 61}


@pytest.mark.parametrize("tokens", [1, 8, 64])
def test_plain_all_reduce_is_chosen_for_decode_on_h20(tokens):
    assert is_plain(planner_of("deepseek-r1-h20-tp8", "decode").best(tokens))


# ---- late gather over sixteen A3 dies (sgl-project/sglang#13333) -------------------------------------------


def test_late_gather_makes_a_36k_prefill_on_a3_faster_than_gathering_hidden_rows():
    planner, tokens = planner_of("deepseek-v3-a3-tp16", "prefill"), 36000
    scattered = {"embed_out": "reduce_scatter", "attn_out": "reduce_scatter"}
    early = named(planner, tokens, attn_in="all_gather", **scattered)
    late = named(planner, tokens, attn_in="latent_all_gather", **scattered)
    assert ops_at(early, "attn_in") == {"all_gather": 61}
    assert ops_at(late, "attn_in") == {"latent_all_gather": 61}
    assert 0.86 <= planner.step_us(late, tokens) / planner.step_us(early, tokens) <= 0.95


# ---- MixedComm in decode on eight H200 (sgl-project/sglang#23713) ------------------------------------------

PAIR = {
    "attn_out": "reduce_scatter",
    "mlp_in": "all_gather",
    "mlp_out": "reduce_scatter_all_gather",
}


@pytest.mark.parametrize("tokens", [8, 16, 32, 64, 128])
def test_the_fused_pair_takes_a_fraction_of_the_unfused_one(tokens):
    planner = planner_of("qwen3.5-397b-h200-dp4", "decode")
    unfused = named(planner, tokens, ("tp_sp",), own_kernels=False, **PAIR)
    fused = planner.uniform("mixed_comm", tokens, own_kernels=False).plan
    assert ops_at(unfused, "attn_out") == {"reduce_scatter(group=attn_tp)": 60}
    assert ops_at(unfused, "mlp_in") == {"all_gather(group=tp)": 60}
    assert set(ops_at(unfused, "mlp_out")) <= {
        f"reduce_scatter_all_gather(group=tp{rule})" for rule in ("", ", residual=fold", ", residual=gather")
    }
    times = [parts_us(planner, plan, tokens, LAYER_BOUNDARIES)["wire"] for plan in (fused, unfused)]
    assert 0.2 <= times[0] / times[1] <= 0.6


@pytest.mark.parametrize("tokens", [8, 16, 32, 64, 128])
def test_the_fused_pair_is_chosen_for_decode_with_attention_dp(tokens):
    plan = planner_of("qwen3.5-397b-h200-dp4", "decode").best(tokens, BY_LIBRARIES)
    assert {edge.op.name for layer in plan.layers for edge in layer if edge.boundary == "attn_out"} == {
        "all_reduce_all_gather"
    }
    assert [layer[3].op.name for layer in plan.layers[:-1]] == ["reduce_scatter_all_reduce"] * 59


@pytest.mark.parametrize("name", ["deepseek-r1-h20-tp8", "qwen3-32b-a2-tp2", "qwen3-235b-h200-tp8"])
def test_mixed_comm_without_attention_dp_is_refused_with_the_reason(name):
    refused = planner_of(name, "decode").uniform("mixed_comm", 64)
    assert refused.plan is None
    assert "attn_dp is 1" in refused.reason


# ---- what nobody should do ---------------------------------------------------------------------------------


def _on_a_switch(name: str) -> bool:
    setup = load_setup(name)
    return setup.parallelism.tp >= 4 and setup.hardware.links.intra_node.topology == "switch"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DEPLOYMENTS if _on_a_switch(name)])
@pytest.mark.parametrize("tokens", [2048, 4096, 8192, 16384])
def test_int8_gather_is_never_chosen_over_four_ranks_on_a_switch_where_bandwidth_rules(name, tokens):
    """It receives N-1 messages of half the size, which is no less than a ring's 2 (N-1)/N from N = 4 on."""
    planner = planner_of(name, "prefill", "numerics.loosest=quantized")
    p = planner.setup.parallelism  # with attention DP a group of attention may be a pair, for which it is right
    gathers = [edge.op for edge in planner.best(tokens).edges if edge.op.algorithm == "gather"]
    assert not [op for op in gathers if p.group_size(op.group or "tp") >= 4]
    if p.attn_dp == 1:
        gather = named(planner, tokens, own_kernels=False, attn_out=int8("gather"), mlp_out=int8("gather"))
        assert planner.step_us(gather, tokens) > planner.step_us(planner.plain(tokens), tokens)


def takes_whole_rows(name):
    """No attention DP, and no experts behind an all-to-all: those take shards whatever a sum leaves."""
    p = load_setup(name).parallelism
    return p.attn_dp == 1 and p.moe_backend != "all_to_all"


@pytest.mark.parametrize("name", [name for name in DEPLOYMENTS if takes_whole_rows(name)])
def test_tp_sp_is_never_chosen_for_decode_of_a_single_token(name):
    plan = planner_of(name, "decode").best(1)
    ops = {edge.op.name for layer in plan.layers for edge in layer}
    assert not ops & {"reduce_scatter", "reduce_scatter_all_gather"}


@pytest.mark.parametrize("strategy", [name for name in strategies() if name != "mixed_comm"])
def test_1023_tokens_over_eight_ranks_are_legal_and_a_padded_shard_costs_what_a_full_one_costs(strategy, h20):
    """An op on padded rows costs the same, but for the copy that pads them."""
    plan = named(h20, 1023, (strategy,))
    for edge, _ in plan.counted:
        for term in edge.terms:
            costs = [h20.costs.estimate(term, tokens).total_us for tokens in (1023, 1024)]
            if term.rows in ("padded", "shard"):
                assert costs[0] == costs[1]
            elif term.rows == "all":
                assert costs[0] < costs[1]
            elif term.rows == "unaligned":
                assert costs[0] > costs[1] == 0


@pytest.mark.parametrize("tokens", [1023, 9])
def test_mixed_comm_of_rows_that_do_not_divide_is_legal_and_costs_the_padded_rows(tokens):
    planner = planner_of("qwen3.5-397b-h200-dp4", "decode", f"modes.decode.tokens=[1, {tokens + 8}]")
    fused, padded = planner.uniform("mixed_comm", tokens).plan, -(-tokens // 8) * 8
    wire = [parts_us(planner, fused, count, LAYER_BOUNDARIES)["wire"] for count in (tokens, padded)]
    assert wire[0] == wire[1]
