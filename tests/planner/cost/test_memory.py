"""Activation memory: sharded rows take less, workspace counts, and a limit removes ops."""

from __future__ import annotations

import pytest

from commplan.planner.search.graph import Edge
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import NoLegalPlanError

from ..named_plans import ops_at
from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model, latent_model

SLOW_LINKS = Machine(link_gb_per_s=1, kernel_us=0.1, call_us=0.1, hop_us=0.1)
ROWS = 1024
STREAM = ROWS * HIDDEN_SIZE * 2  # bytes of all rows


def peaks(planner: ModePlanner, boundary: str, tokens: int = ROWS) -> dict[str, int]:
    """Peak bytes by op, coming from replicated streams (from sharded ones before a gather)."""
    found = {}
    start = "token_sharded" if boundary.endswith("_in") else "replicated"
    for edge in planner.graph().edges:
        before = edge.before
        if edge.boundary == boundary and before and before.hidden == before.residual == start:
            found[str(edge.op)] = peak(planner, edge, tokens)
    return found


def peak(planner: ModePlanner, edge: Edge, tokens: int) -> int:
    return planner.builder.memory.peak_bytes(edge.boundary, edge.op, edge.before, edge.after, edge.shape, tokens)


@pytest.fixture
def planner(folder) -> ModePlanner:
    return ModePlanner(folder.setup(dense_model(), SLOW_LINKS, tp=4), "prefill")


def test_an_all_reduce_holds_the_residual_the_partial_and_the_sum(planner):
    assert peaks(planner, "attn_out")["all_reduce"] == 3 * STREAM


def test_a_reduce_scatter_leaves_less_than_an_all_reduce(planner):
    found = peaks(planner, "attn_out")
    assert found["reduce_scatter"] == 2.25 * STREAM


def test_int8_gather_holds_every_ranks_values(planner):
    found = peaks(planner, "attn_out")
    elements = STREAM // 2
    values = elements * (1 + 4 + 4 * 4)  # my INT8, four ranks' INT8, and those as fp32
    assert found["int8_all_reduce(algorithm=gather)"] == found["all_reduce"] + values
    assert found["int8_all_reduce(algorithm=two_shot)"] < found["int8_all_reduce(algorithm=gather)"]


def test_more_tokens_never_need_less(planner):
    for edge in planner.graph().edges:
        needs = [peak(planner, edge, tokens) for tokens in (1, 2, 7, 64, 1000, 4096)]
        assert needs == sorted(needs)


def test_a_limit_takes_the_ops_that_need_more(folder):
    model = dense_model() | {"intermediate_size": 256}
    pair = {"tp": 2, "launch": "graph", "numerics": {"forbid": [{"op": "reduce_scatter"}]}}
    free = ModePlanner(folder.setup(model, SLOW_LINKS, **pair), "prefill")
    assert "int8_all_reduce" in "".join(ops_at(free.best(4096), "attn_out"))
    found = peaks(free, "attn_out", 4096)
    between = (found["all_reduce"] + min(v for op, v in found.items() if op.startswith("int8"))) / 2
    limits = {"activation_memory_gb": between / 1e9}
    limited = ModePlanner(folder.setup(model, SLOW_LINKS, limits=limits, **pair), "prefill")
    assert "int8_all_reduce" not in "".join(ops_at(limited.best(4096), "attn_out"))
    assert "int8_all_reduce" in "".join(ops_at(limited.best(1024), "attn_out"))


def test_a_limit_that_nothing_keeps_is_an_error_that_names_it(folder):
    limits = {"activation_memory_gb": 1e-6}
    planner = ModePlanner(folder.setup(dense_model(), SLOW_LINKS, tp=2, limits=limits), "prefill")
    with pytest.raises(NoLegalPlanError) as refused:
        planner.best(4096)
    assert refused.value.field == "limits.activation_memory_gb"


def test_gathering_latents_needs_less_than_gathering_hidden_rows(folder):
    planner = ModePlanner(folder.setup(latent_model(), SLOW_LINKS, tp=4), "prefill")
    found = peaks(planner, "attn_in")
    assert found["latent_all_gather"] < found["all_gather"]
