"""The search finds the cheapest legal plan: every plan of small models, listed and priced by hand, is the witness."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.search.graph import ForwardGraph, Plan
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import NoLegalPlanError
from commplan.planner.strategy.layout import LAYER_BOUNDARIES
from commplan.planner.strategy.ops import NUMERICS_CLASSES

from ..random_machines import examples, machines, tied_machines
from ..tiny_setups import (
    INT8_GATHER,
    Machine,
    Mapping,
    SetupFolder,
    dense_model,
    latent_model,
    own_table,
    own_tables,
    table,
)
from .brute_force import FEW, FEW_ROWS, STAGED, STAGED_PIECES, Move, World, listed
from .brute_force_costs import Cost, Prices

A2A = {"tp": 4, "ep": 4, "moe_backend": "all_to_all"}
ONE_SHOT = table("all_reduce", 2, {512: 3.0, 65536: 9.0, 1048576: 40.0}, impl="custom_one_shot")
FP8 = table(
    "quantized_all_reduce.two_shot",
    2,
    {512: 4.0, 65536: 7.0, 1048576: 20.0},
    impl="flashinfer_fp8",
    wire="fp8_e4m3",
    scale_group="256",
)
THROUGH_HOST = tuple(
    own_table(op, 2, {1: 8.0 + (pieces or 1), 4096: us / (pieces or 1)}, STAGED, pieces=pieces)
    for op, us in ((INT8_GATHER, 90.0), ("all_reduce.gather", 150.0))
    for pieces in STAGED_PIECES
)
IN_ONE_LAUNCH = own_table(f"all_reduce.{FEW}", 2, {1: 3.0, 64: 20.0, FEW_ROWS: 90.0}, STAGED)
ANY_FORMAT = {"wire_formats": ["int8", "fp8_e4m3"], "ranks_may_differ": True}


@dataclass(frozen=True)
class Case:
    """A tiny deployment, and the same in the words of the brute force."""

    world: World
    model: Mapping
    split: Mapping = field(default_factory=dict)
    vendor: str = "nvidia"
    extra_tables: tuple[Mapping, ...] = ()
    numerics: Mapping = field(default_factory=dict)

    def planner(self, folder: SetupFolder, machine: Machine, mode: str = "prefill", **rules: object) -> ModePlanner:
        backend = {"nvidia": "nccl", "ascend": "hccl", "cpu": "gloo"}[self.vendor]
        tables = (*(table | {"impl": backend} for table in machine.tables), *self.extra_tables)
        given = replace(machine, vendor=self.vendor, tables=tables, fp8_tflops=200.0 if self.world.fp8 else None)
        writer = SetupFolder(folder.folder, self.world.executor, folder.modes)
        rules["numerics"] = {**self.numerics, **rules.get("numerics", {})}
        rules["composed"] = self.world.composed
        return ModePlanner(writer.setup(self.model, given, **(self.split or {"tp": self.world.tp}), **rules), mode)


CASES = {
    "one device": Case(World(1, 2), dense_model()),
    "tp 2": Case(World(2, 2), dense_model()),
    "tp 4": Case(World(4, 2), dense_model()),
    "tp 2 of Ascend": Case(World(2, 2), dense_model(), vendor="ascend"),
    "tp 2 of CPUs in fp32": Case(World(2, 2), dense_model(), {"tp": 2, "dtypes": {"activations": "fp32"}}, "cpu"),
    "tp 2 under sglang": Case(World(2, 2, executor="sglang"), dense_model()),
    "tp 2, latent, under sglang": Case(
        World(2, 1, latent=True, executor="sglang", one_shot=True), latent_model(1), extra_tables=(ONE_SHOT,)
    ),
    "tp 2, latent": Case(World(2, 2, latent=True), latent_model()),
    "tp 4, all-to-all": Case(World(4, 2, latent=True, shard_layers=frozenset({1})), latent_model(), A2A),
    "attention 2x2": Case(World(4, 2, dp=2), dense_model(), {"tp": 4, "attn_dp": 2}),
    "attention 2x2, fused kernels": Case(
        World(4, 2, dp=2, executor="plan_only"), dense_model(), {"tp": 4, "attn_dp": 2}
    ),
    "attention 2x2, latent": Case(World(4, 2, dp=2, latent=True), latent_model(), {"tp": 4, "attn_dp": 2}),
    "attention 2x2, all-to-all": Case(
        World(4, 2, dp=2, latent=True, shard_layers=frozenset({1})), latent_model(), {**A2A, "attn_dp": 2}
    ),
    "tp 2, FP8 of FlashInfer": Case(
        World(2, 1, executor="plan_only", fp8=True), dense_model(1), extra_tables=(FP8,), numerics=ANY_FORMAT
    ),
    "tp 2, composed": Case(World(2, 1, composed=True), dense_model(1)),
    "tp 2, through the host": Case(
        World(2, 1, staged=True), dense_model(1), extra_tables=(*THROUGH_HOST, IN_ONE_LAUNCH)
    ),
    "tp 4, composed": Case(World(4, 1, composed=True), dense_model(1)),
    "attention 2x2, composed": Case(World(4, 1, dp=2, composed=True), dense_model(1), {"tp": 4, "attn_dp": 2}),
    "tp 2, own kernels": Case(World(2, 1, own=True), dense_model(1), extra_tables=own_tables((2,))),
    "tp 2, latent, own kernels": Case(
        World(2, 1, latent=True, own=True), latent_model(1), extra_tables=own_tables((2,))
    ),
    "attention 2x2, own kernels": Case(
        World(4, 1, dp=2, own=True), dense_model(1), {"tp": 4, "attn_dp": 2}, extra_tables=own_tables((2, 4), attn_dp=2)
    ),
    "attn_tp 1, own kernels": Case(
        World(4, 1, dp=4, own=True), dense_model(1), {"tp": 4, "attn_dp": 4}, extra_tables=own_tables((4,))
    ),
    "attention 2x2 under sglang": Case(
        World(4, 2, dp=2, executor="sglang", one_shot=True),
        dense_model(),
        {"tp": 4, "attn_dp": 2},
        extra_tables=(ONE_SHOT | {"group_size": 4},),
    ),
    "attn_tp 1 under sglang": Case(World(4, 2, dp=4, executor="sglang"), dense_model(), {"tp": 4, "attn_dp": 4}),
    "attn_tp 1": Case(World(4, 2, dp=4), dense_model(), {"tp": 4, "attn_dp": 4}),
    "attn_tp 1, fused kernels": Case(World(4, 2, dp=4, executor="plan_only"), dense_model(), {"tp": 4, "attn_dp": 4}),
}
case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
# A second or more for a few examples, measured: worlds with tens of thousands of plans.
LARGE = {
    "tp 2, latent",
    "tp 2 under sglang",
    "tp 4, all-to-all",
    "tp 2 of CPUs in fp32",
    "attention 2x2",
    "attention 2x2, fused kernels",
    "attention 2x2, latent",
    "attention 2x2, all-to-all",
    "attention 2x2, own kernels",
}
case_by_size = pytest.mark.parametrize(
    "case",
    [pytest.param(each, marks=[pytest.mark.slow] if name in LARGE else []) for name, each in CASES.items()],
    ids=CASES,
)


def ops_of(plan: Plan) -> tuple[str, ...]:
    return tuple(str(edge.op) for edge in plan.edges)


def cheapest(case: Case, planner: ModePlanner, tokens: int, keeps=lambda moves: True) -> tuple[Cost, dict]:
    """The least cost over all listed plans that keep a rule, and the cost of each."""
    prices = Prices(planner.setup, planner.mode, tokens)
    world = replace(case.world, switched=planner.setup.hardware.links.intra_node.topology == "switch")
    plans = {ops: moves for ops, moves in listed(world).items() if tokens <= FEW_ROWS or not any(map(is_few, moves))}
    costs = {ops: prices.plan(moves) for ops, moves in plans.items() if keeps(moves)}
    return min(costs.values(), default=None), costs


def is_few(move: Move) -> bool:
    """A sum that takes few rows alone."""
    return move.impl == STAGED and move.algorithm == FEW


def check_against(case: Case, planner: ModePlanner, tokens: int, keeps=lambda moves: True) -> None:
    best, costs = cheapest(case, planner, tokens, keeps)
    if best is None:
        with pytest.raises(NoLegalPlanError):
            planner.best(tokens)
        return
    plan = planner.best(tokens)
    assert ops_of(plan) in costs
    assert costs[ops_of(plan)] == best
    assert abs(planner.pricer.plan_ps(plan, tokens) - best.time_ps) <= 2 * len(plan.edges)


@case
def test_the_graph_holds_exactly_the_legal_plans(case, folder):
    graph = case.planner(folder, Machine()).graph()
    assert paths(graph) == set(listed(case.world))


def paths(graph: ForwardGraph) -> set[tuple[str, ...]]:
    steps = [graph.embed_out]
    steps += [layer.boundaries[name] for layer in graph.layers for name in LAYER_BOUNDARIES]
    fronts: dict[object, list[tuple[str, ...]]] = {None: [()]}
    for boundary in [*steps, graph.head_in]:
        after: dict[object, list[tuple[str, ...]]] = {}
        for state, taken in fronts.items():
            for edge in boundary.get(state, ()):
                after.setdefault(edge.after, []).extend((*ops, str(edge.op)) for ops in taken)
        fronts = after
    found = [ops for taken in fronts.values() for ops in taken]
    assert len(found) == len(set(found))
    return set(found)


@case_by_size
@given(machine=machines(), tokens=st.integers(1, 4096), decode=st.booleans())
@examples(12)
def test_no_listed_plan_is_cheaper_than_the_planners(case, folder, machine, tokens, decode):
    mode, tokens = ("decode", min(tokens, 256)) if decode else ("prefill", tokens)
    check_against(case, case.planner(folder, machine, mode), tokens)


@case_by_size
@given(machine=tied_machines(), tokens=st.integers(1, 64))
@examples(6)
def test_among_equally_fast_plans_the_better_numerics_then_the_fewer_ops_win(case, folder, machine, tokens):
    check_against(case, case.planner(folder, machine), 4 * tokens)


def flat(all_reduce: float) -> Machine:
    """Two ranks whose halves of an all-reduce take 10 us each, whatever the size, and that compute in no time."""
    latencies = {"all_reduce": all_reduce, "reduce_scatter": 10.0, "all_gather": 10.0, "all_to_all": 10.0}
    tables = tuple(table(op, 2, {1: time, 1 << 40: time}) for op, time in latencies.items())
    return Machine(bf16_tflops=1e9, memory_gb_per_s=1e12, kernel_us=1e-9, tables=tables)


def test_a_tie_goes_to_the_better_numerics_class(folder):
    setup = folder.setup(dense_model(), flat(all_reduce=20.0), tp=2, loosest="reordered")
    plan = ModePlanner(setup, "decode").best(64)
    assert {edge.op.name for edge in plan.edges} == {"all_reduce", "none"}


def test_a_tie_within_a_class_goes_to_fewer_ops(folder):
    """Scattering at attn_out and gathering at mlp_in takes as long as both in one op."""
    setup = folder.setup(dense_model(), flat(all_reduce=100.0), tp=2, loosest="reordered")
    plan = ModePlanner(setup, "decode").best(64)
    assert [edge.op.name for edge in plan.layers[1]] == ["none", "reduce_scatter_all_gather"] * 2


RULED = ("tp 2", "tp 2, latent", "tp 4, all-to-all", "attention 2x2")
ruled = pytest.mark.parametrize(
    "case", [pytest.param(CASES[name], marks=[pytest.mark.slow] if name in LARGE else []) for name in RULED], ids=RULED
)
OUT, IN = ("attn_out", "mlp_out"), ("attn_in", "mlp_in")
PLACES = {
    "all_reduce": OUT,
    "int8_all_reduce": OUT,
    "reduce_scatter": OUT,
    "reduce_scatter_all_gather": OUT,
    "all_reduce_all_gather": ("attn_out",),
    "all_gather": IN,
    "latent_all_gather": ("attn_in",),
    "slice": IN,
    "none": (*IN, *OUT),
}
places = st.sampled_from([(op, boundary) for op, boundaries in PLACES.items() for boundary in boundaries])
scopes = st.fixed_dictionaries(
    {}, optional={"layers": st.sampled_from([0, 1, "0-1"]), "modes": st.sampled_from([["prefill"], ["decode"]])}
)
rules = st.builds(lambda place, scope: {"op": place[0], "boundary": place[1], **scope}, places, scopes)
wide_rules = st.builds(lambda op, scope: {"op": op, **scope}, st.sampled_from(list(PLACES)), scopes)


@ruled
@given(
    machine=machines(),
    tokens=st.integers(1, 2048),
    forbid=st.lists(rules | wide_rules, max_size=3),
    pin=st.lists(rules, max_size=1),
    loosest=st.sampled_from(NUMERICS_CLASSES),
)
@examples(20)
def test_forbids_pins_and_the_loosest_class_hold(case, folder, machine, tokens, forbid, pin, loosest):
    numerics = {"forbid": forbid, "pin": pin}

    def keeps(moves: tuple[Move, ...]) -> bool:
        for index, move in enumerate(moves):
            layer = (index - 1) // 4 if 0 < index < len(moves) - 1 else None
            if NUMERICS_CLASSES[move.numerics] not in NUMERICS_CLASSES[: NUMERICS_CLASSES.index(loosest) + 1]:
                return False
            if any(speaks_of(rule, move, layer) and rule["op"] == move.name for rule in forbid):
                return False
            if any(speaks_of(rule, move, layer) and rule["op"] != move.name for rule in pin):
                return False
        return True

    planner = case.planner(folder, machine, loosest=loosest, numerics=numerics)
    check_against(case, planner, tokens, keeps)


def speaks_of(rule: Mapping, move: Move, layer: int | None) -> bool:
    layers = {None: (None, 0, 1), 0: (0,), 1: (1,), "0-1": (0, 1)}[rule.get("layers")]
    here = rule.get("boundary", move.boundary) == move.boundary and layer in layers
    return here and "prefill" in rule.get("modes", ["prefill"])


NEUTRAL = {"none", "slice", "all_gather"}
SCATTERS = {"latent_all_gather", "reduce_scatter", "reduce_scatter_all_gather"}


def is_all_reduce(move: Move, case: Case) -> bool:
    return move.name == "all_reduce"


def is_int8(move: Move, case: Case) -> bool:
    return move.name == ("all_reduce" if move.boundary == "embed_out" else "int8_all_reduce")


def is_tp_sp(move: Move, case: Case) -> bool:
    """Its late-gather form completes a sharded residual by an all-reduce at attn_out."""
    late = move.name == "all_reduce" and move.boundary == "attn_out" and move.residual is not None
    return move.name in SCATTERS or (late and move.group == ("tp" if case.world.dp == 1 else "attn_tp"))


MEMBERS = {"all_reduce": is_all_reduce, "int8_all_reduce": is_int8, "tp_sp": is_tp_sp}


@pytest.mark.parametrize("strategy", MEMBERS)
@ruled
@given(machine=machines(), tokens=st.integers(1, 2048))
@examples(6)
def test_a_uniform_strategy_is_its_cheapest_legal_member(case, folder, strategy, machine, tokens):
    def is_uniform(moves: tuple[Move, ...]) -> bool:
        return all(move.name in NEUTRAL or MEMBERS[strategy](move, case) for move in moves)

    planner = case.planner(folder, machine)
    best, _ = cheapest(case, planner, tokens, is_uniform)
    found = planner.uniform(strategy, tokens)
    assert abs(planner.pricer.plan_ps(found.plan, tokens) - best.time_ps) <= 2 * len(found.plan.edges)
