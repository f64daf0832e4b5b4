"""A step is the longer of host and device, layer by layer; a host that replays a graph costs nothing."""

from __future__ import annotations

import pytest

from commplan.planner.answers.breakdown import breakdown
from commplan.planner.descriptions.calibration import Calibration
from commplan.planner.search.graph import Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError

from ..tiny_setups import KERNELS, Machine, dense_model, latent_model, own_table, table

FAST = Machine(
    bf16_tflops=1e6,
    memory_gb_per_s=1e6,
    kernel_us=0.001,
    tables=tuple(
        table(op, 2, {1: 1.0, 1 << 40: 1.0}) for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
    ),
)


def planner_of(folder, machine=FAST, mode="prefill", model=None, **rules) -> ModePlanner:
    return ModePlanner(folder.setup(model or dense_model(), machine, tp=2, **rules), mode)


def plain_us(planner: ModePlanner, tokens: int = 64) -> float:
    return planner.step_us(planner.plain(tokens), tokens)


def test_an_eager_step_is_at_least_what_its_host_launches(folder):
    """Two layers: 31 + 5 launches of their own, two sums and two norms each; before them the embedding."""
    planner = planner_of(folder)
    host = planner.setup.executor.host
    launch, call = host.launch_us.value, host.calls["library"].value
    layers = 2 * ((31 + 5 + 2) * launch + 2 * call)
    embedding = (16 + 1) * launch + call
    assert plain_us(planner) == pytest.approx(layers + embedding, rel=1e-3)


def test_a_graph_costs_the_host_nothing(folder):
    eager, graph = planner_of(folder), planner_of(folder, launch="graph")
    assert plain_us(graph) < 30
    assert plain_us(graph) < plain_us(eager) / 50
    assert plain_us(planner_of(folder, mode="decode")) < 30  # decode is replayed unless something else is said
    assert plain_us(planner_of(folder, mode="decode", launch="eager")) > plain_us(graph) * 50


def test_a_forward_costs_the_host_nothing_up_to_the_largest_graph(folder):
    eager, graph = planner_of(folder), planner_of(folder, launch="graph")
    some = planner_of(folder, modes=span(graph_up_to=64))
    assert [plain_us(some, tokens) for tokens in (16, 64)] == [plain_us(graph, tokens) for tokens in (16, 64)]
    assert [plain_us(some, tokens) for tokens in (65, 4096)] == [plain_us(eager, tokens) for tokens in (65, 4096)]


def test_a_range_ends_with_the_largest_graph_where_the_host_changes_the_plan(folder):
    """Our kernel takes 2 us longer on the device than the library, and 39 less on the host."""
    tables = (*FAST.tables, own_table("all_reduce", 2, {1: 3.0, 1 << 40: 3.0}))
    machine = Machine(bf16_tflops=1e6, memory_gb_per_s=1e6, tables=tables)
    planner = planner_of(folder, machine, modes=span(graph_up_to=1001), loosest="exact")
    found = [(r.first, r.last, {e.op.impl for e, _ in r.plan.counted if e.op.kind.runs}) for r in planner.ranges()]
    assert found == [(1, 1001, {None}), (1002, 4096, {KERNELS})]  # in the midst of a shard


def test_what_is_launched_how_is_said_once(folder):
    with pytest.raises(InputError, match="one of the two") as refused:
        planner_of(folder, modes=span(graph_up_to=64, launch="eager"))
    assert refused.value.field == "modes.prefill.graph_up_to"


def span(**more):
    return {"prefill": {"tokens": [1, 4096], "sequence_tokens": 64, **more}}


def test_on_a_cpu_the_host_is_the_device_and_counts_once(folder):
    tables = tuple(t | {"impl": "gloo"} for t in FAST.tables)
    cpu = Machine(vendor="cpu", tables=tables)
    assert plain_us(planner_of(folder, cpu)) == plain_us(planner_of(folder, cpu, launch="graph"))


def test_where_the_device_is_slower_the_host_costs_only_before_the_first_layer(folder):
    slow = Machine(bf16_tflops=0.01, tables=FAST.tables)
    eager, graph = planner_of(folder, slow), planner_of(folder, slow, launch="graph")
    assert 0 < plain_us(eager, 4096) - plain_us(graph, 4096) < 1000
    layers = [planner.plain(4096).layers for planner in (eager, graph)]
    assert [[str(e.op) for e in edges] for edges in layers[0]] == [[str(e.op) for e in edges] for edges in layers[1]]


def test_the_host_makes_fewer_launches_win(folder):
    """Latents are gathered for a few bytes on the device; the host pays for one call more, a copy and a fold."""
    tables = (
        table("all_reduce", 2, {1: 10.0, 1 << 40: 10.0}),
        *(table(op, 2, {1: 4.0, 1 << 40: 4.0}) for op in ("all_gather", "reduce_scatter", "all_to_all")),
    )
    machine = Machine(kernel_us=0.001, bf16_tflops=10.0, tables=tables)
    graph = planner_of(folder, machine, model=latent_model(), launch="graph", loosest="reordered")
    eager = planner_of(folder, machine, model=latent_model(), loosest="reordered")
    used = [{e.op.name for layer in p.best(64).layers for e in layer} - {"none"} for p in (graph, eager)]
    assert "latent_all_gather" in used[0]
    assert used[1] == {"all_reduce"}


def test_an_impl_of_cheap_calls_wins_where_the_host_is_the_bound_and_not_where_it_is_not(folder):
    """Our kernel takes 2 us longer on the device than the library, and 39 less on the host."""
    tables = (*FAST.tables, own_table("all_reduce", 2, {1: 3.0, 4096: 3.0}))
    machine = Machine(bf16_tflops=1e6, memory_gb_per_s=1e6, tables=tables)
    for launch, impl in (("eager", KERNELS), ("graph", None)):
        planner = planner_of(folder, machine, launch=launch, loosest="exact")
        assert {e.op.impl for layer in planner.best(64).layers for e in layer if e.op.name == "all_reduce"} == {impl}


def test_what_was_measured_on_the_machine_stands_before_the_executors_figures(folder):
    planner = planner_of(folder)
    used = planner.setup.calibrations[0]
    data = used.calibration.model_dump(by_alias=True) | {"host": {"launch_us": 1.0, "calls": {"nccl": 2.0}}}
    object.__setattr__(used, "calibration", Calibration.model_validate(data))
    measured = ModePlanner(planner.setup, "prefill")
    assert measured.pricer.host.launch_us == 1.0
    assert measured.pricer.host.call_us("nccl") == 2.0
    assert measured.pricer.host.call_us(KERNELS) == planner.setup.executor.host.calls["one_kernel"].value
    assert plain_us(measured) < plain_us(planner) / 10


def test_the_parts_of_a_step_that_waits_for_the_host_add_up_to_it(folder):
    planner = planner_of(folder)
    parts = breakdown(planner, planner.plain(64), 64)
    assert sum(parts.parts.values()) == pytest.approx(parts.step_us)
    assert parts.parts["host_wait"] == pytest.approx(planner.host_wait_us(planner.plain(64), 64))
    assert parts.provenances["host_wait"] == "assumed"


# ---- measured steps --------------------------------------------------------------------------------------------------


def modes(**more):
    return {"prefill": {"tokens": [1, 4096], "sequence_tokens": 64, "launch": "graph", **more}}


def test_a_measured_step_is_what_plain_all_reduce_then_takes(folder):
    modelled = planner_of(folder, Machine(), modes=modes())
    step = {tokens: 2.5 * plain_us(modelled, tokens) for tokens in (64, 1024)}
    scaled = planner_of(folder, Machine(), modes=modes(measured_step_us=step))
    for tokens, us in step.items():
        assert plain_us(scaled, tokens) == pytest.approx(us, rel=1e-6)


def test_a_measured_step_leaves_communication_as_it_is_and_makes_its_gain_smaller(folder):
    """Two halves of an all-reduce take less than the whole here."""
    tables = [table("all_reduce", 2, {1: 100.0, 1 << 40: 100.0})]
    tables += [table(op, 2, {1: 20.0, 1 << 40: 20.0}) for op in ("all_gather", "reduce_scatter", "all_to_all")]
    slow_links = Machine(tables=tuple(tables))
    modelled = planner_of(folder, slow_links, modes=modes())
    us = 2.5 * plain_us(modelled, 1024)
    scaled = planner_of(folder, slow_links, modes=modes(measured_step_us={1024: us}))
    halves = Restriction(strategies=("tp_sp",))
    gains = []
    for planner in (modelled, scaled):
        best = planner.best(1024, halves)
        parts = [breakdown(planner, plan, 1024).parts["communication"] for plan in (planner.plain(1024), best)]
        gains.append((plain_us(planner, 1024) / planner.step_us(best, 1024), parts[0]))
    assert gains[0][1] == gains[1][1]
    assert gains[0][0] > gains[1][0] > 1


def test_between_two_measured_steps_the_factor_lies_between_and_beyond_them_it_stays(folder):
    modelled = planner_of(folder, Machine(), modes=modes())
    step = {64: 3.0 * plain_us(modelled, 64), 1024: 1.5 * plain_us(modelled, 1024)}
    planner = planner_of(folder, Machine(), modes=modes(measured_step_us=step))
    factors = [planner.compute_factor(tokens) for tokens in (1, 64, 256, 1024, 4096)]
    assert factors[0] == factors[1] > factors[2] > factors[3] == factors[4] > 1


def test_a_measured_step_leaves_passes_over_memory_as_they_are(folder):
    """A norm inside a kernel saves what the norm takes by itself, however long the GEMMs beside it are."""
    modelled = planner_of(folder, Machine(), modes=modes())
    scaled = planner_of(folder, Machine(), modes=modes(measured_step_us={1024: 3 * plain_us(modelled, 1024)}))
    norms = []
    for planner in (modelled, scaled):
        edges = planner.plain(1024).edges
        terms = {term for edge in edges for term in edge.terms if term.category == "norm"}
        norms.append(sorted(planner.costs.estimate(term, 1024).total_us for term in terms))
    assert scaled.compute_factor(1024) > 3
    assert norms[0] == norms[1] and norms[0][0] > 0


def test_a_measured_step_shorter_than_its_communication_is_refused(folder):
    planner = planner_of(folder, Machine(), modes=modes(measured_step_us={64: 0.5}))
    short = "shorter than the communication and the norms of plain all-reduce at 64 tokens"
    with pytest.raises(InputError, match=short) as refused:
        planner.step_us(planner.best(64), 64)
    assert refused.value.field == "modes.prefill.measured_step_us"


@pytest.mark.parametrize("given", [{}, {0: 5.0}, {"x": 5.0}, {64: -1.0}, {64: "fast"}, [64, 5.0], 5.0])
def test_a_measured_step_that_is_none_is_refused(folder, given):
    with pytest.raises(InputError) as refused:
        planner_of(folder, Machine(), modes=modes(measured_step_us=given))
    assert refused.value.field.startswith("modes.prefill.measured_step_us")


@pytest.mark.parametrize("given", ["graphs", True, 1, "Eager"])
def test_a_launch_state_that_is_none_is_refused(folder, given):
    with pytest.raises(InputError) as refused:
        planner_of(folder, Machine(), modes=modes() | {"prefill": modes()["prefill"] | {"launch": given}})
    assert refused.value.field == "modes.prefill.launch"
