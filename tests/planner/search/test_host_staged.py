"""Sums through host memory are planned where a table of this machine says that they are the quickest, nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from commplan.planner.answers.from_file import plan_of
from commplan.planner.answers.refusals import rejection
from commplan.planner.answers.to_file import plan_setup
from commplan.planner.answers.validation import _executor_problems
from commplan.planner.cost.composed import num_staged
from commplan.planner.cost.memory import MemoryCosts
from commplan.planner.cost.terms import Composed
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.graph import Edge
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import load
from commplan.planner.strategy.file.writing import dump
from commplan.planner.strategy.layout import REPLICATED, LayerShape, State
from commplan.planner.strategy.ops import Op
from commplan.planner.what_if.wire_formats import reached

from ..tiny_setups import (
    HIDDEN_SIZE,
    INT8_GATHER,
    KERNELS,
    Machine,
    Mapping,
    SetupFolder,
    dense_model,
    own_table,
    table,
)

STAGED, WITH_NORM = "host_staged", "host_staged_norm"
LIBRARY = tuple(table(op, 2, {1024: 20.0, 1 << 30: 1e6}) for op in ("all_gather", "all_to_all", "all_reduce"))
SLOW_LINK = Machine(topology="pcie", multicast=False, tables=LIBRARY)
BEFORE = State(REPLICATED, REPLICATED)


def staged_table(us: float, op: str = INT8_GATHER, impl: str = WITH_NORM, **more: Any) -> Mapping:
    return own_table(op, 2, {1: 1.0, 4096: us}, impl, **more)


def machine(*tables: Mapping, **figures: Any) -> Machine:
    return replace(SLOW_LINK, tables=(*LIBRARY, *tables), **figures)


def planner_of(folder: SetupFolder, on: Machine, **given: Any) -> ModePlanner:
    return ModePlanner(
        folder.setup(dense_model(), on, tp=given.pop("tp", 2), composed=True, launch="graph", **given), "prefill"
    )


def staged_edges(planner: ModePlanner, boundary: str = "attn_out") -> list[Edge]:
    by_state = planner.graph().layers[0].boundaries[boundary]
    return [e for edges in by_state.values() for e in edges if e.op.impl in (STAGED, WITH_NORM)]


def why(planner: ModePlanner, impl: str = WITH_NORM) -> str | None:
    return rejection(planner, (0, "attn_out"), Op("int8_all_reduce", "gather", impl=impl), BEFORE)


def pinned(impl: str) -> Mapping:
    return {"pin": [{"op": "int8_all_reduce", "boundary": "attn_out", "impl": impl}]}


def test_the_plan_takes_it_where_its_table_is_the_quickest_and_in_the_pieces_that_are(folder):
    planner = planner_of(folder, machine(staged_table(40.0), staged_table(30.0, pieces=4)))
    ops = {edge.op for layer in planner.best(4096).layers for edge in layer if edge.op.kind.is_quantized}
    assert ops == {Op("int8_all_reduce", "gather", impl=WITH_NORM, pieces=4)}
    slow = planner_of(folder, machine(staged_table(1e5)))
    assert WITH_NORM not in {edge.op.impl for edge in slow.best(4096).edges}


def test_only_what_was_measured_is_offered(folder):
    planner = planner_of(folder, machine(staged_table(30.0, pieces=4)))
    assert {edge.op for edge in staged_edges(planner)} == {Op("int8_all_reduce", "gather", impl=WITH_NORM, pieces=4)}
    six = staged_table(20.0, "quantized_all_reduce.gather", wire="int6", scale_group="64")
    allowed = {"wire_formats": ["int8", "int6"]}
    both = planner_of(folder, machine(staged_table(30.0), six), numerics=allowed)
    assert {(e.op.wire_name, e.op.pieces) for e in staged_edges(both) if e.op.residual is None} == {
        (None, None),
        ("int6", None),
    }


def test_without_a_table_it_is_refused_with_the_way_out(folder):
    planner = planner_of(folder, SLOW_LINK)
    assert staged_edges(planner) == []
    assert why(planner) == f"{WITH_NORM} has no formula, and invented no table of it: run commplan calibrate"


def test_a_table_of_another_host_is_no_table_of_this_one(folder):
    own, other = (folder.setup(dense_model(), m, tp=2, composed=True) for m in (SLOW_LINK, machine(staged_table(1.0))))
    assert staged_edges(ModePlanner(replace(own, lent=other.calibrations), "prefill")) == []
    here = folder.setup(dense_model(), machine(staged_table(30.0, pieces=2)), tp=2, composed=True)
    edges = staged_edges(ModePlanner(replace(here, lent=other.calibrations), "prefill"))
    assert {edge.op.pieces for edge in edges} == {2}


def test_where_devices_reach_each_other_only_a_rule_that_names_it_has_it(folder, tmp_path):
    direct = machine(staged_table(1.0), peer_access=True)
    planner = planner_of(folder, direct)
    assert staged_edges(planner) == []
    assert why(planner) is None  # it is not even spoken of
    ruled = planner_of(folder, direct, numerics=pinned(WITH_NORM))
    assert staged_edges(ruled)
    path = tmp_path / "plan.yaml"
    path.write_text(dump(plan_setup(ruled.setup)))
    assert plan_of(ruled, load(path), 64, str(path))
    with pytest.raises(InputError, match="reach each other's memory; a rule of numerics"):
        plan_of(planner, load(path), 64, str(path))


def test_ranks_of_several_nodes_share_no_memory(folder):
    tables = (staged_table(1.0), *(t | {"group_size": 4} for t in LIBRARY))
    planner = planner_of(folder, machine(*tables, devices_per_node=2, num_nodes=2), tp=4)
    assert staged_edges(planner) == []
    assert why(planner) == f"{WITH_NORM} reaches the devices of one node, and the 4 ranks span several"


def test_groups_of_attention_dp_within_a_node_may_and_all_ranks_may_not(folder):
    four = replace(SLOW_LINK, tables=(*LIBRARY, *(t | {"group_size": 4} for t in (*LIBRARY, staged_table(1.0)))))
    on = replace(four, tables=(*four.tables, staged_table(1.0)), devices_per_node=2, num_nodes=2)
    planner = planner_of(folder, on, tp=4, attn_dp=2)
    assert {edge.op.group for edge in staged_edges(planner)} == {"attn_tp"}
    assert staged_edges(planner, "mlp_out") == []
    op = Op("int8_all_reduce", "gather", impl=WITH_NORM, group="tp")
    assert (
        rejection(planner, (0, "mlp_out"), op, BEFORE)
        == f"{WITH_NORM} reaches the devices of one node, and this group spans 2"
    )


def test_without_the_norm_it_stands_where_the_one_with_it_cannot(folder):
    tables = (staged_table(30.0), staged_table(30.0, impl=STAGED))
    assert {edge.op.impl for edge in staged_edges(planner_of(folder, machine(*tables)))} == {WITH_NORM}
    adds_one = dense_model() | {"architecture": "Qwen3NextForCausalLM"}
    setup = folder.setup(adds_one, machine(*tables), tp=2, composed=True)
    assert {edge.op.impl for edge in staged_edges(ModePlanner(setup, "prefill"))} == {STAGED}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"algorithm": "two_shot"}, f"{WITH_NORM} does not do algorithm two_shot; it does gather, one_shot"),
        ({"dtype": "fp32"}, f"{WITH_NORM} takes bf16 or fp16 activations, not fp32"),
        ({"ranks": 16}, f"{WITH_NORM} runs over up to 8 ranks, and this group has 16"),
        ({"backend": "rccl"}, f"{WITH_NORM} runs on nvidia, not where rccl is the backend"),
    ],
)
def test_its_limits_are_kept(folder, given, words):
    can = folder.setup(dense_model(), tp=2).executor.can
    op = Op("int8_all_reduce", given.get("algorithm", "gather"), impl=WITH_NORM)
    by = given.get("backend", "nccl"), given.get("dtype", "bf16"), given.get("ranks", 2)
    assert can.impl_refusal("attn_out", op, *by, 256) == words


# ---- rows as they are ------------------------------------------------------------------------------------------------

ROWS = "all_reduce.gather"


def test_rows_travel_as_they_are_where_nothing_may_be_quantised(folder):
    tables = (staged_table(40.0, ROWS), staged_table(30.0, ROWS, pieces=2), staged_table(1.0))
    planner = planner_of(folder, machine(*tables), loosest="reordered")
    ops = {edge.op for layer in planner.best(4096).layers for edge in layer if edge.op.kind.sums}
    assert ops == {Op("all_reduce", "gather", impl=WITH_NORM, pieces=2)}
    exact = planner_of(folder, machine(*tables), loosest="exact")
    assert {edge.op.impl for edge in exact.best(4096).edges} == {None}


def test_the_embedding_is_summed_so_where_that_was_measured_without_a_norm(folder):
    planner = planner_of(folder, machine(staged_table(1.0, ROWS, STAGED), staged_table(1.0, ROWS)))
    plan = planner.best(4096)
    assert plan.embed_out.op == Op("all_reduce", "gather", impl=STAGED)
    assert {edge.op.impl for layer in plan.layers for edge in layer if edge.op.kind.sums} == {WITH_NORM}


def test_a_rank_receives_and_holds_the_rows_of_all_others(folder):
    setup = folder.setup(dense_model(), machine(staged_table(30.0, ROWS)), tp=2, composed=True)
    op, row = Op("all_reduce", "gather", impl=WITH_NORM), HIDDEN_SIZE * 2
    costs = ModePlanner(setup, "prefill").costs
    (wire, _) = terms_of(setup, op)
    assert costs.estimate(wire, 64).wire_bytes == 64 * row
    assert op.kind.received_per_row("gather", 8, 8, HIDDEN_SIZE, 2) == 7 * row
    assert MemoryCosts(setup).peak_bytes("attn_out", op, BEFORE, BEFORE, LayerShape(), 64) == 5 * 64 * row


@pytest.mark.parametrize(
    ("given", "impl", "words"),
    [
        (None, WITH_NORM, f"{WITH_NORM} performs all_reduce by an algorithm that the op names: gather or one_shot"),
        ("two_shot", WITH_NORM, f"{WITH_NORM} does not do algorithm two_shot; it does gather, one_shot"),
        ("one_shot", WITH_NORM, None),
        ("one_shot", KERNELS, None),
        ("gather", KERNELS, f"gather of all_reduce is by kernels around whole messages, and {KERNELS} is another impl"),
        ("gather", STAGED, None),
    ],
)
def test_an_all_reduce_says_how_whole_messages_travel_and_by_whom(folder, given, impl, words):
    can = folder.setup(dense_model(), tp=2).executor.can
    assert can.impl_refusal("attn_out", Op("all_reduce", given, impl=impl), "nccl", "bf16", 2, 256) == words


def test_every_rank_adds_in_fp32_and_in_one_order(folder):
    demands = {"accumulation": "fp32", "batch_invariant": True}
    four = tuple(t | {"group_size": 4} for t in (*LIBRARY, staged_table(1.0, ROWS), staged_table(1.0, ROWS, STAGED)))
    planner = planner_of(folder, replace(SLOW_LINK, tables=four), numerics=demands, tp=4, loosest="reordered")
    assert Op("all_reduce", "gather", impl=WITH_NORM) in {edge.op for edge in staged_edges(planner)}


# ---- few rows in one launch ------------------------------------------------------------------------------------------

FEW = "all_reduce.one_shot"
MOST = 2621440 // (2 * HIDDEN_SIZE)
"""Rows that the executors' files let it have."""


def few_table(us: float, impl: str = WITH_NORM, rows: int = 64) -> Mapping:
    return own_table(FEW, 2, {1: 1.0, rows: us}, impl)


def long_prefill(folder: SetupFolder) -> SetupFolder:
    """One whose prefill has more tokens than that."""
    modes = folder.modes | {"prefill": {"tokens": [1, 2 * MOST], "sequence_tokens": 64}}
    return SetupFolder(folder.folder, folder.executor, modes)


def sums_of(planner: ModePlanner, tokens: int) -> set[Op]:
    return {edge.op for layer in planner.best(tokens).layers for edge in layer if edge.op.kind.sums}


def test_few_rows_are_summed_in_one_launch_and_more_than_were_measured_are_not(folder):
    planner = planner_of(folder, machine(few_table(2.0), staged_table(400.0, ROWS)), loosest="reordered")
    one_shot = Op("all_reduce", "one_shot", impl=WITH_NORM)
    assert sums_of(planner, 1) == sums_of(planner, 64) == {one_shot}
    assert one_shot not in sums_of(planner, 65)
    assert {r.last for r in planner.ranges()} >= {64}
    why = rejection(planner, (0, "attn_out"), one_shot, BEFORE)
    assert why is None
    (edge,) = {e for e in staged_edges(planner) if e.op == one_shot}
    assert planner.pricer.unfit(edge, 64) is None
    assert planner.pricer.unfit(edge, 65) == (
        f"one_shot of {WITH_NORM} takes messages up to {64 * 2 * HIDDEN_SIZE / 1024:g} KiB, "
        f"and 65 tokens are {65 * 2 * HIDDEN_SIZE / 1024:g} KiB"
    )


def test_no_table_has_it_beyond_what_its_file_says(folder):
    planner = planner_of(long_prefill(folder), machine(few_table(2.0, rows=4 * MOST)), loosest="reordered")
    assert {op.algorithm for op in sums_of(planner, MOST)} == {"one_shot"}
    assert {op.algorithm for op in sums_of(planner, MOST + 1)} == {None}
    assert MOST in {r.last for r in planner.ranges()}


def test_a_table_of_gathers_is_no_table_of_it_and_no_pieces_are_offered(folder):
    gathers = planner_of(folder, machine(staged_table(1.0, ROWS), staged_table(1.0, ROWS, pieces=4)))
    assert {edge.op.algorithm for edge in staged_edges(gathers)} == {"gather"}
    few = planner_of(folder, machine(few_table(1.0)))
    assert {(edge.op.algorithm, edge.op.pieces) for edge in staged_edges(few)} == {("one_shot", None)}
    cut = Op("all_reduce", "one_shot", impl=WITH_NORM, pieces=2)
    why = few.setup.executor.can.impl_refusal("attn_out", cut, "nccl", "bf16", 2, 256)
    assert why == "one_shot of all_reduce is one launch, which has no pieces"


def test_it_is_refused_as_gathers_are_where_devices_reach_each_other(folder):
    assert staged_edges(planner_of(folder, machine(few_table(1.0), peer_access=True))) == []
    pin = {"pin": [{"op": "all_reduce", "boundary": "attn_out", "impl": WITH_NORM}]}
    planner = planner_of(folder, machine(few_table(1.0), peer_access=True), numerics=pin)
    assert {edge.op.algorithm for edge in staged_edges(planner)} == {"one_shot"}


def test_it_is_of_the_class_of_our_kernel_and_adds_in_one_order(folder):
    demands = {"accumulation": "fp32", "batch_invariant": True}
    four = tuple(t | {"group_size": 4} for t in (*LIBRARY, few_table(1.0), few_table(1.0, STAGED)))
    planner = planner_of(folder, replace(SLOW_LINK, tables=four), numerics=demands, tp=4, loosest="exact")
    assert {(edge.op.algorithm, edge.numerics) for edge in staged_edges(planner)} == {("one_shot", "exact")}


def test_its_host_launches_it_once_and_the_device_holds_nothing_for_it(folder):
    setup = folder.setup(dense_model(), machine(few_table(1.0)), tp=2, composed=True)
    op, planner = Op("all_reduce", "one_shot", impl=WITH_NORM), ModePlanner(setup, "prefill")
    (wire,) = terms_of(setup, op)
    assert planner.pricer.host.term_us(wire) == setup.executor.host.launch_us.value
    assert planner.costs.estimate(wire, 8).wire_bytes == 8 * HIDDEN_SIZE * 2
    assert MemoryCosts(setup).peak_bytes("attn_out", op, BEFORE, BEFORE, LayerShape(), 8) == 3 * 8 * HIDDEN_SIZE * 2


def test_a_file_that_names_it_for_too_many_tokens_is_refused(folder, tmp_path):
    planner = planner_of(long_prefill(folder), machine(few_table(2.0, rows=4 * MOST)), loosest="reordered")
    path, text = tmp_path / "plan.yaml", dump(plan_setup(planner.setup))
    path.write_text(text)
    assert "one_shot" in text
    assert _executor_problems(load(path), planner.setup.executor) == []
    more = text.replace(f"tokens: [1, {MOST}]", f"tokens: [1, {MOST + 1}]")
    path.write_text(more.replace(f"tokens: [{MOST + 1},", f"tokens: [{MOST + 2},"))
    (first, *_) = _executor_problems(load(path), planner.setup.executor)
    assert first.reason.endswith(f": {MOST} tokens, not {MOST + 1}")


# ---- costs -----------------------------------------------------------------------------------------------------------


def terms_of(setup: Setup, op: Op) -> tuple[Any, ...]:
    return ModePlanner(setup, "prefill").costs.terms("attn_out", op, BEFORE, BEFORE, LayerShape())


def test_its_host_launches_copies_and_flags_of_every_piece_and_no_call_of_the_library(folder):
    eager = ModePlanner(folder.setup(dense_model(), machine(), tp=2, composed=True), "prefill")
    launch = eager.setup.executor.host.launch_us.value
    for pieces in (1, 4):
        op = Op("int8_all_reduce", "gather", impl=WITH_NORM, pieces=pieces if pieces > 1 else None)
        wire, kernels = terms_of(eager.setup, op)
        assert isinstance(wire.work, Composed) and num_staged(wire.work, 2) == 5 * pieces + 2
        assert wire.label == "int8_all_reduce through the host"
        host = eager.pricer.host
        assert host.term_us(wire) + host.term_us(kernels) == pytest.approx((5 * pieces + 2 + 2 * pieces) * launch)


def test_it_holds_on_the_device_what_the_same_sum_around_the_library_holds(folder):
    memory = MemoryCosts(folder.setup(dense_model(), machine(), tp=2, composed=True))
    peaks = {
        memory.peak_bytes("attn_out", Op("int8_all_reduce", "gather", impl=impl), BEFORE, BEFORE, LayerShape(), 64)
        for impl in ("composed_norm", WITH_NORM)
    }
    assert len(peaks) == 1


def test_how_far_a_format_reaches_rests_on_its_table_and_on_no_formula(folder):
    plain, quick = (planner_of(folder, m) for m in (SLOW_LINK, machine(staged_table(1.0))))
    before, after = ({(r.wire, r.group): r.step_us for r in reached(p, 4096)[2]} for p in (plain, quick))
    assert {sent for sent, us in after.items() if us < before[sent] * (1 - 1e-6)} == {("int8", "token")}
