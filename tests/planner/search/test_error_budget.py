"""With an error budget the plan is the cheapest whose quantised sums keep it: all subsets of small models are tried."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.cost.numerics import relative_rms_error
from commplan.planner.search.cheapest_plan import search
from commplan.planner.search.damage import ERROR_UNIT, squared_budget
from commplan.planner.search.graph import Plan, Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import NoLegalPlanError
from commplan.planner.strategy.ops import Op

from ..random_machines import examples, sizes
from ..tiny_setups import Machine, dense_model, latent_model
from .brute_force import ALL, QUANTIZED, Move, Streams, World, listed
from .brute_force_costs import Prices

# Weights have three decimals, so that their squares are exact in the search's resolution of one millionth.
weights = st.integers(1, 3000).map(lambda n: n / 1000)
GATHER = relative_rms_error(Op("int8_all_reduce", algorithm="gather"), 2)
SLOW_LINKS = Machine(link_gb_per_s=1, hop_us=0.1, call_us=0.1, kernel_us=0.1)


@cache
def squared_error(move: Move, group_size: int) -> Fraction:
    if move.numerics < QUANTIZED:
        return Fraction(0)
    return Fraction(repr(relative_rms_error(Op(move.name, algorithm=move.algorithm), group_size))) ** 2


def squared_errors(moves: tuple[Move, ...], sensitivity: dict[str, list[float]], group_size: int) -> Fraction:
    total = Fraction(0)
    for index, move in enumerate(moves):
        if move.numerics == QUANTIZED:
            weight = sensitivity[move.boundary][(index - 1) // 4]
            total += squared_error(move, group_size) * Fraction(repr(weight)) ** 2
    return total


def int8_places(plan: Plan) -> list[tuple[int, str]]:
    return [(i, e.boundary) for i, layer in enumerate(plan.layers) for e in layer if e.op.name == "int8_all_reduce"]


WORLDS = {
    "two layers": (World(2, 2), dense_model(2)),
    "two layers with latents": (World(2, 2, latent=True), latent_model(2)),
}


@pytest.mark.slow
@pytest.mark.parametrize(("world", "model"), WORLDS.values(), ids=WORLDS)
@given(data=st.data(), link=sizes(0.1, 20), kernel_us=sizes(0.05, 5), tokens=st.integers(64, 2048))
@examples(12)
def test_the_best_of_all_subsets_within_the_budget_is_found(world, model, folder, data, link, kernel_us, tokens):
    machine = replace(SLOW_LINKS, link_gb_per_s=link, kernel_us=kernel_us)
    one_per_layer = st.lists(weights, min_size=world.layers, max_size=world.layers)
    sensitivity = {"attn_out": data.draw(one_per_layer), "mlp_out": data.draw(one_per_layer)}
    every_sum = GATHER * math.hypot(*sensitivity["attn_out"], *sensitivity["mlp_out"])
    budget = every_sum * (data.draw(st.integers(50, 1050)) + 0.37) / 1000  # never the error of a whole subset
    setup = folder.setup(model, machine, tp=2, numerics={"error_budget": budget}, sensitivity=sensitivity)
    prices = Prices(setup, "prefill", tokens)
    plans = listed(world)
    allowed = {
        ops: prices.plan(moves)
        for ops, moves in plans.items()
        if squared_errors(moves, sensitivity, 2) <= Fraction(budget) ** 2
    }
    found = tuple(str(edge.op) for edge in ModePlanner(setup, "prefill").best(tokens).edges)
    assert squared_errors(plans[found], sensitivity, 2) <= Fraction(budget) ** 2
    assert prices.plan(plans[found]) == min(allowed.values())


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 40))])
def test_a_budget_over_eight_sums_of_three_ranks_is_spent_on_the_best_of_6561_choices(folder, seed):
    """Over three ranks gather saves a quarter of the bytes, and two_shot half of them at twice the squared error."""
    random = Random(seed)
    sensitivity = {where: [random.randint(1, 3000) / 1000 for _ in range(4)] for where in ("attn_out", "mlp_out")}
    budget = GATHER * math.hypot(*sensitivity["attn_out"], *sensitivity["mlp_out"]) * random.uniform(0.1, 1.0)
    machine = replace(SLOW_LINKS, link_gb_per_s=10 ** random.uniform(-1, 1), kernel_us=10 ** random.uniform(-1.3, 0.7))
    model = dense_model(4) | {"num_attention_heads": 12, "num_key_value_heads": 6}
    rules = {"error_budget": budget, "forbid": [{"op": "reduce_scatter"}, {"op": "reduce_scatter_all_gather"}]}
    setup = folder.setup(model, machine, tp=3, numerics=rules, sensitivity=sensitivity, launch="graph")  # sums add up
    prices, streams = Prices(setup, "prefill", 1024), Streams(ALL, ALL)
    choices = []
    for where, weight in ((where, w) for where, weights in sensitivity.items() for w in weights):
        moves = [m for m in World(3, 4).moves(where, 0, streams) if m.name in ("all_reduce", "int8_all_reduce")]
        choices.append([(prices.move(m)[0], squared_error(m, 3) * Fraction(repr(weight)) ** 2) for m in moves])
    least = min(
        sum(time for time, _ in chosen)
        for chosen in product(*choices)
        if sum(error for _, error in chosen) <= Fraction(budget) ** 2
    )
    planner = ModePlanner(setup, "prefill")
    found = [edge for layer in planner.best(1024).layers for edge in layer]
    assert abs(sum(planner.pricer.price_ps(edge, 1024) for edge in found) - least) <= 2 * len(found)


def test_a_budget_buys_as_many_equal_sums_as_fit(folder):
    for count in (0, 1, 5, 10, 24):
        rules = {"error_budget": GATHER * math.sqrt(count + 0.5), "forbid": [{"op": "reduce_scatter"}]}
        planner = ModePlanner(folder.setup(dense_model(12), SLOW_LINKS, tp=2, numerics=rules), "prefill")
        assert len(int8_places(planner.best(4096))) == count


def test_a_budget_of_exactly_one_error_admits_one(folder):
    setup = folder.setup(dense_model(2), SLOW_LINKS, tp=2, numerics={"error_budget": GATHER})
    assert len(int8_places(ModePlanner(setup, "prefill").best(4096))) == 1


def test_the_least_sensitive_sums_are_quantised_first(folder):
    sensitivity = {"attn_out": [3.0, 0.1, 3.0, 0.2], "mlp_out": [0.3, 3.0, 3.0, 3.0]}
    rules = {"error_budget": GATHER * 0.5, "forbid": [{"op": "reduce_scatter"}]}
    setup = folder.setup(dense_model(4), SLOW_LINKS, tp=2, numerics=rules, sensitivity=sensitivity)
    assert int8_places(ModePlanner(setup, "prefill").best(4096)) == [(0, "mlp_out"), (1, "attn_out"), (3, "attn_out")]


@pytest.mark.slow
def test_more_budget_never_makes_a_plan_slower(folder):
    sensitivity = {"attn_out": [(3 + 7 * i % 11) / 10 for i in range(24)], "mlp_out": [(2 + i) / 10 for i in range(24)]}
    times = []
    for budget in [0.0001, *(0.004 * 1.3**step for step in range(16)), 10.0]:
        setup = folder.setup(
            dense_model(24), SLOW_LINKS, tp=2, numerics={"error_budget": budget}, sensitivity=sensitivity
        )
        planner = ModePlanner(setup, "prefill")
        times.append(planner.pricer.plan_ps(planner.best(4096), 4096))
    assert times == sorted(times, reverse=True)
    assert len(set(times)) > 10
    without_budget = ModePlanner(folder.setup(dense_model(24), SLOW_LINKS, tp=2), "prefill")
    assert times[-1] == without_budget.pricer.plan_ps(without_budget.best(4096), 4096)
    unquantised = ModePlanner(folder.setup(dense_model(24), SLOW_LINKS, tp=2, loosest="reordered"), "prefill")
    assert times[0] == unquantised.pricer.plan_ps(unquantised.best(4096), 4096)


def test_a_budget_that_no_plan_keeps_is_an_error_that_names_it(folder):
    pins = [{"op": "int8_all_reduce", "boundary": "attn_out"}]
    setup = folder.setup(dense_model(2), tp=2, numerics={"error_budget": GATHER / 2, "pin": pins})
    with pytest.raises(NoLegalPlanError) as refused:
        ModePlanner(setup, "prefill").best(64)
    assert refused.value.field == "numerics.error_budget"
    assert refused.value.value == GATHER / 2
    least = math.sqrt(2) * GATHER  # one INT8 sum in each of two layers
    assert f"{least:.4g}" in refused.value.message


def test_the_budget_counts_only_where_the_policy_does(folder):
    """The yardstick of plain all-reduce, and plans that are named by their ops, are not held to it."""
    setup = folder.setup(dense_model(2), SLOW_LINKS, tp=2, numerics={"error_budget": 1e-6})
    planner = ModePlanner(setup, "prefill")
    assert not int8_places(planner.best(4096))
    assert any(edge.op.kind.is_quantized for edge in planner.best(4096, Restriction(policy=False)).edges)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [3, 12])
@pytest.mark.parametrize("seed", range(4))
def test_a_search_with_slack_stays_within_it_and_its_bound_is_below_the_optimum(folder, seed, layers):
    random = Random(seed)
    sensitivity = {where: [random.lognormvariate(0, 0.7) for _ in range(layers)] for where in ("attn_out", "mlp_out")}
    budget = GATHER * math.hypot(*sensitivity["attn_out"], *sensitivity["mlp_out"]) * random.uniform(0.1, 1.0)
    machine = replace(SLOW_LINKS, link_gb_per_s=10 ** random.uniform(-1, 1), kernel_us=10 ** random.uniform(-1.3, 0.7))
    setup = folder.setup(dense_model(layers), machine, tp=2, numerics={"error_budget": budget}, sensitivity=sensitivity)
    planner = ModePlanner(setup, "prefill")
    graph, pricer, squared = planner.graph(), planner.pricer, squared_budget(budget)
    near = None
    for tokens in sorted(random.sample(range(1, 5000), 12)):
        optimum = pricer.plan_ps(planner.best(tokens), tokens)
        slack = round(optimum * random.choice([1e-4, 1e-2, 1.0]))
        found = search(graph, pricer, tokens, squared, slack, near)
        near = found.near
        time = pricer.plan_ps(found.plan, tokens)
        assert found.least_ps <= optimum <= time <= found.least_ps + slack
        weights = zip(sensitivity["attn_out"], sensitivity["mlp_out"], strict=True)
        errors = (
            math.sqrt(edge.squared_error / ERROR_UNIT) * weight
            for (attn_in, attn_out, mlp_in, mlp_out), (attn, mlp) in zip(found.plan.layers, weights, strict=True)
            for edge, weight in ((attn_in, 0), (attn_out, attn), (mlp_in, 0), (mlp_out, mlp))
        )
        assert math.hypot(*errors) <= budget * (1 + 1e-6)
