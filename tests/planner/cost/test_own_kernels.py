"""Ops by one kernel of commplan's: planned exactly where their tables say that they win, and never without a table."""

from __future__ import annotations

import pytest

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.cost.op_costs import OpCosts
from commplan.planner.cost.terms import OneKernel, Term
from commplan.planner.search.graph import Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.layout import LayerShape, State, apply
from commplan.planner.strategy.ops import Op

from ..tiny_setups import (
    HIDDEN_SIZE,
    INT8_GATHER,
    KERNELS,
    WITH_NORM,
    Machine,
    dense_model,
    latent_model,
    own_table,
    own_tables,
    table,
)

OWN = (KERNELS, WITH_NORM)
REPLICATED, MIXED = State("replicated", "replicated"), State("replicated", "token_sharded")
FREE = Restriction(policy=False)


def library(group_size: int = 2, us: float = 20.0) -> tuple:
    """Collectives of one time, whatever the size."""
    ops = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
    return tuple(table(op, group_size, {1: us, 1 << 40: us}) for op in ops)


def planner_of(folder, *tables, mode: str = "prefill", model=None, tp: int = 2, machine=None, **rules) -> ModePlanner:
    machine = machine or Machine(tables=(*library(tp), *tables))
    return ModePlanner(folder.setup(model or dense_model(), machine, tp=tp, **rules), mode)


def impls(planner: ModePlanner, restriction: Restriction = FREE) -> set[tuple[str, str]]:
    edges = planner.graph(restriction).edges
    return {(edge.op.name, edge.op.impl) for edge in edges if edge.op.impl in OWN}


def terms_of(planner: ModePlanner, boundary: str, op: Op, before: State) -> dict[str, list[Term]]:
    setup, shape = planner.setup, LayerShape()
    after = apply(boundary, op, before, shape, setup.parallelism)
    found: dict[str, list[Term]] = {}
    for term in planner.costs.terms(boundary, op, before, after, shape):
        found.setdefault(term.category, []).append(term)
    return found


# ---- where they are planned ------------------------------------------------------------------------------------------


def test_a_kernel_is_planned_up_to_the_row_count_at_which_the_library_overtakes_it(folder):
    """5 us at one row, 80 at 4096: the library's 20 us lie between, at 4096 ** (1 / 2) = 64 rows."""
    tables = own_table("all_reduce", 2, {1: 5.0, 4096: 80.0})
    planner = planner_of(folder, tables, loosest="exact", launch="graph")
    for tokens in (1, 2, 17, 63, 65, 100, 4096):
        used = {edge.op.impl for edge in planner.best(tokens).edges if edge.op.name == "all_reduce"}
        assert used == {KERNELS if tokens < 64 else None}, tokens
    (first, second) = planner.ranges()
    assert 55 <= first.last <= 73
    assert (first.plan.embed_out.op.impl, second.plan.embed_out.op.impl) == (KERNELS, None)


def test_at_every_boundary_the_chosen_sum_is_the_cheapest_of_all_that_are_legal_there(folder):
    """Without a choice of layouts a plan is the cheapest op of each boundary by itself."""
    only_sums = {"forbid": [{"op": "reduce_scatter"}]}
    planner = planner_of(folder, *own_tables((2,), scale=4.0), numerics=only_sums, launch="graph")
    seen = set()
    for tokens in (1, 8, 100, 999, 4096):
        plan = planner.best(tokens)
        for edge in plan.edges:
            rivals = planner.graph().layers[0].boundaries["mlp_out"][REPLICATED]
            if edge.boundary == "mlp_out":
                prices = {str(rival.op): planner.pricer.price_ps(rival, tokens) for rival in rivals}
                assert prices[str(edge.op)] == min(prices.values())
                seen.add(edge.op.impl)
    assert len(seen) > 1  # neither the library nor a kernel wins everywhere


@pytest.mark.parametrize("name", ["gloo", "no table", "a table of four ranks", "fp32", "250 columns", "two nodes"])
def test_no_plan_has_a_kernel_that_was_not_measured_or_cannot_run(folder, name):
    tables, more = own_tables((2,)), {}
    machine = Machine(tables=(*library(), *tables))
    if name == "gloo":
        machine = Machine(vendor="cpu", tables=(*(t | {"impl": "gloo"} for t in library()), *tables))
    elif name == "no table":
        machine = Machine(tables=library())
    elif name == "a table of four ranks":
        machine = Machine(tables=(*library(), *own_tables((4,))))
    elif name == "fp32":
        more = {"dtypes": {"weights": "bf16", "activations": "fp32"}}
    elif name == "250 columns":
        more = {"model": {**dense_model(), "hidden_size": 250}}
    else:
        machine = Machine(devices_per_node=1, num_nodes=2, tables=(*library(), *tables))
    planner = planner_of(folder, machine=machine, **more)
    assert impls(planner) == set()
    assert impls(planner_of(folder, *tables)) != set()


def test_a_table_of_one_op_offers_that_op_alone(folder):
    planner = planner_of(
        folder, own_table("all_reduce", 2, {1: 1.0, 64: 1.0}), own_table(INT8_GATHER, 2, {1: 1, 64: 1})
    )
    assert impls(planner) == {("all_reduce", KERNELS), ("int8_all_reduce", KERNELS)}
    own = [edge.op for edge in planner.graph(FREE).edges if edge.op.impl in OWN]
    quantised = [op for op in own if op.name == "int8_all_reduce"]
    assert {op.algorithm for op in quantised} == {"gather"}


def test_more_ranks_than_a_kernel_takes_are_refused(folder):
    setup = folder.setup(dense_model(), Machine(devices_per_node=16, tables=own_tables((16,))), tp=16)
    planner = ModePlanner(setup, "prefill")
    assert impls(planner) == set()
    refused = [r for r in planner.builder.rejections("attn_out", 0, REPLICATED) if r.op.impl in OWN]
    assert {r.reason for r in refused if r.op.residual is None} == {
        f"{impl} runs over up to 8 ranks, and this group has 16" for impl in OWN
    }


def test_a_group_inside_a_node_may_use_them_where_tp_spans_nodes(folder):
    """Attention runs over two ranks of a node; the sum of the MLP over all four of two nodes."""
    machine = Machine(devices_per_node=2, num_nodes=2, tables=own_tables((2, 4), attn_dp=2))
    planner = ModePlanner(folder.setup(dense_model(), machine, tp=4, attn_dp=2), "prefill")
    places = {(e.boundary, e.op.group) for e in planner.graph(FREE).edges if e.op.impl in OWN}
    assert ("attn_out", "attn_tp") in places
    assert {boundary for boundary, group in places if group != "attn_tp"} == set()


def test_the_kernel_with_the_norm_has_no_place_where_no_residual_is_added(folder):
    planner = planner_of(folder, *own_tables((2,)))
    with_norm = {edge.boundary for edge in planner.graph(FREE).edges if edge.op.impl == WITH_NORM}
    assert with_norm == {"attn_out", "mlp_out"}
    reasons = [r.reason for r in planner.builder.rejections("embed_out", None, None) if r.op.impl == WITH_NORM]
    assert reasons
    assert all("at embed_out there is no residual yet" in reason for reason in reasons)


def test_a_sum_by_a_kernel_is_as_exact_as_any_all_reduce_and_its_int8_as_lossy(folder):
    planner = planner_of(folder, *own_tables((2,)))
    classes: dict[tuple[str | None, ...], set[object]] = {}
    for edge in planner.graph(FREE).edges:
        key = (edge.op.name, edge.op.algorithm, edge.op.residual, edge.op.wire_name, edge.op.scale_group)
        classes.setdefault(key, set()).add((edge.numerics, edge.squared_error))
    assert all(len(found) == 1 for found in classes.values())
    assert {numerics for numerics, _ in classes["all_reduce", None, None, None, None]} == {"exact"}


# ---- what they cost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all_reduce", "int8_all_reduce", "reduce_scatter"])
def test_the_kernel_with_the_norm_costs_its_table_and_nothing_else(folder, name):
    planner = planner_of(folder, *own_tables((2,)))
    algorithm = "two_shot" if name == "int8_all_reduce" else None
    before = MIXED if name == "reduce_scatter" else REPLICATED  # with a residual that is cut to shards it has a copy
    parts = terms_of(planner, "attn_out", Op(name, algorithm=algorithm, impl=WITH_NORM), before)
    without = terms_of(planner, "attn_out", Op(name, algorithm=algorithm, impl=KERNELS), before)
    assert list(parts) == ["wire"]
    assert set(without) == {"wire", "norm"}
    assert all(isinstance(term.work, OneKernel) for term in (*parts["wire"], *without["wire"]))
    estimate = planner.costs.estimate(parts["wire"][0], 64)
    assert (estimate.launch_us, estimate.provenance) == (0.0, "measured")


def test_a_fold_keeps_its_add_and_a_gathered_residual_its_library_call(folder):
    planner = planner_of(folder, *own_tables((2,)))
    fold = terms_of(planner, "attn_out", Op("all_reduce", residual="fold", impl=WITH_NORM), MIXED)
    gather = terms_of(planner, "attn_out", Op("all_reduce", residual="gather", impl=WITH_NORM), MIXED)
    assert set(fold) == set(gather) == {"wire", "residual"}
    assert [term.label for term in fold["residual"]] == ["fold_residual"]
    (sent,) = gather["residual"]
    assert (sent.work.op, sent.work.impl) == ("all_gather", "nccl")
    assert fold["wire"] == gather["wire"]  # one table for both


def test_rows_that_tp_does_not_divide_are_not_copied(folder):
    planner = planner_of(folder, *own_tables((2,)))
    assert "padding" not in terms_of(planner, "mlp_out", Op("reduce_scatter", impl=KERNELS), MIXED)
    assert "padding" in terms_of(planner, "mlp_out", Op("reduce_scatter"), MIXED)


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_bytes_on_the_wire_are_those_of_the_algorithm(folder, tp):
    rows = 512
    planner = planner_of(folder, *own_tables((tp,)), tp=tp)
    quantised, plain = rows * (HIDDEN_SIZE + 4), rows * HIDDEN_SIZE * 2
    expected = {
        ("int8_all_reduce", "gather"): (tp - 1) * quantised,
        ("int8_all_reduce", "two_shot"): 2 * (tp - 1) / tp * quantised,
        ("all_reduce", None): 2 * (tp - 1) / tp * plain,
        ("reduce_scatter", None): (tp - 1) / tp * plain,
    }
    for (name, algorithm), received in expected.items():
        (term,) = terms_of(planner, "mlp_out", Op(name, algorithm=algorithm, impl=KERNELS), REPLICATED)["wire"]
        assert planner.costs.estimate(term, rows).wire_bytes == pytest.approx(received)


def test_a_pair_receives_the_rows_of_all_groups_and_the_shards_of_its_own_sum(folder):
    setup = folder.setup(dense_model(), Machine(tables=own_tables((2, 4), attn_dp=2)), tp=4, attn_dp=2)
    planner = ModePlanner(setup, "prefill")
    message = 512 * HIDDEN_SIZE * 2
    for edge in planner.graph(FREE).edges:
        if edge.op.impl == KERNELS and edge.op.kind.spans_two:
            (wire,) = [t for t in edge.terms if t.category == "wire"]
            assert planner.costs.estimate(wire, 512).wire_bytes == pytest.approx(3 / 4 * message + 1 / 2 * message / 2)


def test_latents_are_gathered_by_the_kernel_at_their_own_width(folder):
    model = latent_model()
    width = 96 + 32 + 16
    tables = (
        own_table("all_gather", 2, {1: 9.0, 4096: 9.0}),
        own_table("all_gather", 2, {1: 3.0, 4096: 3.0}, width=width),
    )
    planner = planner_of(folder, *tables, model=model)
    costs = {}
    for edge in planner.graph(FREE).edges:
        if edge.op.impl == KERNELS and edge.boundary == "attn_in":
            (wire,) = [t for t in edge.terms if t.category == "wire"]
            costs[edge.op.name] = planner.costs.estimate(wire, 64).total_us
    assert costs == {"all_gather": pytest.approx(9.0), "latent_all_gather": pytest.approx(3.0)}


# ---- which table -----------------------------------------------------------------------------------------------------


def price(folder, *tables, rows: int = 64) -> tuple[float, str]:
    costs = OpCosts(folder.setup(dense_model(), Machine(tables=tables), tp=2), "prefill")
    work = OneKernel("all_reduce", KERNELS, "bf16", "tp", 2)
    estimate = costs.collectives.one_kernel(work, rows, HIDDEN_SIZE)
    return estimate.total_us, estimate.source


def flat(us: float, width: int | None):
    return own_table("all_reduce", 2, {1: us, 65536: us}, width=width)


def test_the_table_of_the_width_is_taken_else_that_of_any_width_else_the_nearest(folder):
    exact, near, far, any_width = flat(1, HIDDEN_SIZE), flat(2, 384), flat(3, 64), flat(4, None)
    assert price(folder, near, exact, far, any_width)[0] == pytest.approx(1)
    assert price(folder, near, far, any_width)[0] == pytest.approx(4)
    time, source = price(folder, far, near)
    assert time == pytest.approx(2)
    assert source.endswith("rows of 384 elements instead of 256")
    assert price(folder, flat(5, HIDDEN_SIZE * 4), flat(6, HIDDEN_SIZE // 2))[0] == pytest.approx(6)


def test_a_table_of_the_other_half_precision_type_stands_in(folder):
    assert price(folder, flat(7, HIDDEN_SIZE) | {"dtype": "fp16"})[0] == pytest.approx(7)


def test_beyond_its_ends_a_table_is_marked(folder):
    short = own_table("all_reduce", 2, {8: 5.0, 32: 6.0})
    assert price(folder, short, rows=16)[1] == "invented for a test"
    for rows in (4, 64):
        assert price(folder, short, rows=rows)[1].endswith("extrapolated")


def test_token_ranges_may_end_at_the_knots_of_these_tables(folder):
    planner = planner_of(folder, own_table("all_reduce", 2, {1: 5.0, 48: 6.0, 777: 30.0}))
    (term,) = terms_of(planner, "attn_out", Op("all_reduce", impl=KERNELS), REPLICATED)["wire"]
    assert planner.costs.kinks(term) == {1, 48, 777}


# ---- the yardstick ---------------------------------------------------------------------------------------------------


def test_plain_all_reduce_is_the_librarys_and_the_uniform_strategy_the_cheapest(folder):
    planner = planner_of(folder, *own_tables((2,), scale=0.1))
    plain, uniform = planner.plain(16), planner.uniform("all_reduce", 16)
    assert {edge.op.impl for edge in plain.edges} == {None}
    assert {edge.op.impl for edge in uniform.plan.edges if edge.op.kind.is_collective} <= set(OWN)
    assert uniform.step_us < planner.step_us(plain, 16)


def test_a_file_states_the_librarys_all_reduce_beside_the_best_uniform_strategy(folder):
    tables = [own_table("all_reduce", 2, {1: 1.0, 4096: 1.0}, impl) for impl in OWN]
    written = plan_setup(planner_of(folder, *tables, loosest="exact").setup)
    for ranges in written.modes.values():
        for chosen in ranges:
            strategy, step_us = chosen.predicted.best_uniform
            assert strategy == "all_reduce"
            assert step_us == pytest.approx(chosen.predicted.step_us)
            assert chosen.predicted.all_reduce_us > step_us
