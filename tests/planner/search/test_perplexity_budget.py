"""A budget of perplexity: effects add up, and the plan is the cheapest that keeps them; all choices are tried."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from random import Random

import pytest

from commplan.planner.answers.kept_exact import kept_exact
from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError, NoLegalPlanError
from commplan.planner.strategy.file.reading import parse
from commplan.planner.strategy.file.writing import dump
from commplan.planner.what_if.marginal_answers import Asker

from ..tiny_setups import Machine, dense_model, latent_model
from .brute_force import ALL, QUANTIZED, Streams, World
from .brute_force_costs import Prices

SLOW_LINKS = Machine(link_gb_per_s=1, hop_us=0.1, call_us=0.1, kernel_us=0.1)
NO_SCATTER = [{"op": "reduce_scatter"}, {"op": "reduce_scatter_all_gather"}]


def effects(algorithm, attn, mlp):
    zeros = {"attn_out": [0.01] * len(attn), "mlp_out": [0.01] * len(mlp)}
    loss = {"attn_out": list(attn), "mlp_out": list(mlp)}
    return {"wire": "int8", "group": "token", "algorithm": algorithm, "error": zeros, "loss": loss}


def measured(folder, model, formats, budget, ranks=2, machine=SLOW_LINKS, **rules):
    """A setup under a budget, with effects that were measured on its model."""
    layers = model["num_hidden_layers"]
    plain = folder.setup(model, machine, tp=ranks, launch="graph")
    sensitivity = {
        "attn_out": [1.0] * layers,
        "mlp_out": [1.0] * layers,
        "measured": {
            "model": plain.fingerprints["model"], "ranks": ranks, "tokens": 512, "window": 64, "text": "0",
            "perplexity": 15.5, "loss": 2.74, "dtype": "float32", "method": "invented", "versions": "none",
        },
        "formats": formats,
    }  # fmt: skip
    numerics = {"perplexity_budget": budget, **rules}
    return folder.setup(model, machine, tp=ranks, numerics=numerics, sensitivity=sensitivity, launch="graph")


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
def test_a_budget_over_eight_sums_is_spent_on_the_best_of_6561_choices(folder, seed):
    """Each sum is exact, a gather, or two shots, and no algorithm is the better one everywhere."""
    random = Random(seed)
    by_algorithm = {
        a: [[random.lognormvariate(-8, 1.5) for _ in range(4)] for _ in range(2)] for a in ("gather", "two_shot")
    }
    total = sum(sum(map(sum, each)) for each in by_algorithm.values()) / 2
    budget = math.expm1(total * random.uniform(0.05, 0.9))
    machine = replace(SLOW_LINKS, link_gb_per_s=10 ** random.uniform(-1, 1), kernel_us=10 ** random.uniform(-1.3, 0.7))
    model = dense_model(4) | {"num_attention_heads": 12, "num_key_value_heads": 6}
    formats = [effects(name, *values) for name, values in by_algorithm.items()]
    setup = measured(folder, model, formats, budget, ranks=3, machine=machine, forbid=NO_SCATTER)
    prices, streams = Prices(setup, "prefill", 1024), Streams(ALL, ALL)
    choices = []
    for index, where in enumerate(("attn_out", "mlp_out")):
        moves = [m for m in World(3, 4).moves(where, 0, streams) if m.name in ("all_reduce", "int8_all_reduce")]
        for layer in range(4):
            harm = {m: by_algorithm[m.algorithm][index][layer] if m.numerics == QUANTIZED else 0.0 for m in moves}
            choices.append([(prices.move(m)[0], harm[m]) for m in moves])
    least = min(
        sum(time for time, _ in chosen)
        for chosen in product(*choices)
        if math.fsum(loss for _, loss in chosen) <= math.log1p(budget)
    )
    planner = ModePlanner(setup, "prefill")
    plan = planner.best(1024)
    found = [edge for layer in plan.layers for edge in layer]
    assert abs(sum(planner.pricer.price_ps(edge, 1024) for edge in found) - least) <= 2 * len(found)
    assert planner.perplexity_rise(plan) <= budget * (1 + 1e-9)


def test_the_prediction_is_the_sum_of_the_effects_and_stands_in_the_file(folder):
    attn, mlp = [0.001, -0.5, 0.002], [0.003, 0.004, 9.0]
    setup = measured(folder, dense_model(3), [effects("two_shot", attn, mlp)], 0.02, forbid=NO_SCATTER)
    file = plan_setup(setup)
    plan = file.modes["prefill"][-1]
    by_place = {(i, b): v for b, values in (("attn_out", attn), ("mlp_out", mlp)) for i, v in enumerate(values)}
    used = [place for place in by_place if plan.layers[place[0]].at(place[1]).kind.is_quantized]
    assert (2, "mlp_out") not in used and len(used) == 5
    rise = math.expm1(sum(max(0.0, by_place[place]) for place in used))  # what came out negative gains nothing
    assert plan.predicted is not None
    assert plan.predicted.perplexity_rise == pytest.approx(rise, rel=1e-9)
    again = parse(dump(file)).modes["prefill"][-1].predicted
    assert again is not None
    assert again.perplexity_rise == pytest.approx(rise, rel=1e-5)
    assert again.perplexity_budget == 0.02
    assert parse(dump(file)) == parse(dump(parse(dump(file))))
    told = str(kept_exact(setup, plan))
    assert told.startswith(
        "5 of 6 sums quantised, perplexity +1.01% predicted of +2.00% allowed; kept exact: 2.mlp_out"
    )
    assert "each alone is more than the" in told


def test_a_gather_that_was_not_measured_counts_as_two_shots(folder):
    setup = measured(folder, dense_model(2), [effects("two_shot", [0.001] * 2, [0.001] * 2)], 0.0025, forbid=NO_SCATTER)
    planner = ModePlanner(setup, "prefill")
    ops = [edge.op for layer in planner.best(4096).layers for edge in layer if edge.op.kind.is_quantized]
    assert {op.algorithm for op in ops} == {"gather"}  # over two ranks both send as much, and this quantises once
    assert len(ops) == 2


def test_a_format_whose_effect_is_unknown_is_not_chosen_and_the_reason_says_so(folder):
    other = effects("two_shot", [0.0] * 2, [0.0] * 2) | {"group": 64}
    setup = measured(folder, dense_model(2), [other], 0.5, forbid=NO_SCATTER)
    planner = ModePlanner(setup, "prefill")
    assert not any(edge.op.kind.is_quantized for edge in planner.best(4096).edges)
    reasons = {
        each.reason for each in planner.builder.rejections("attn_out", 0, planner.best(4096).layers[0][1].before)
    }
    assert any("has no effect on the loss of int8, a scale for each row" in reason for reason in reasons)


def test_a_budget_that_pins_break_is_an_error_that_names_it(folder):
    pins = [{"op": "int8_all_reduce", "boundary": "attn_out"}]
    setup = measured(folder, dense_model(2), [effects("two_shot", [0.01] * 2, [0.0] * 2)], 0.005, pin=pins)
    with pytest.raises(NoLegalPlanError) as refused:
        ModePlanner(setup, "prefill").best(64)
    assert refused.value.field == "numerics.perplexity_budget"
    assert "a perplexity +2.0" in refused.value.message


def test_a_budget_without_effects_on_this_model_over_as_many_ranks_is_refused(folder):
    model, formats = dense_model(2), [effects("two_shot", [0.001] * 2, [0.001] * 2)]
    weights = {"attn_out": [1.0] * 2, "mlp_out": [1.0] * 2}
    good = measured(folder, model, formats, 0.01)
    cases = {
        "needs numerics.sensitivity": ("numerics.sensitivity=null",),
        "stands beside error_budget": ("numerics.error_budget=0.1",),
        "measured over 2 ranks, and here are 4": ("parallelism.tp=4",),
        "measured on another model": ("model.intermediate_size=1024",),
        "loosest is reordered": ("numerics.loosest=reordered",),
    }
    for reason, texts in cases.items():
        with pytest.raises(InputError) as refused:
            load_setup(good.file, texts)
        assert reason in refused.value.message
        assert refused.value.field == "numerics.perplexity_budget"
    with pytest.raises(InputError, match="weights alone"):
        folder.setup(model, tp=2, numerics={"perplexity_budget": 0.01}, sensitivity=weights)
    with pytest.raises(InputError, match=r"2, not 3"):
        measured(folder, model, [effects("two_shot", [0.001] * 3, [0.001] * 2)], 0.01)


def test_what_a_budget_says_nothing_of_leaves_fingerprints_as_they_were(folder):
    plain = folder.setup(latent_model(2), tp=2)
    data = plain.deployment.model_dump(mode="json", by_alias=True)
    assert "perplexity_budget" not in data["numerics"]


def test_what_twice_the_budget_buys_is_told_in_its_own_unit(folder):
    setup = measured(folder, dense_model(4), [effects("two_shot", [0.001] * 4, [0.001] * 4)], 0.0025, forbid=NO_SCATTER)
    answer = Asker(setup.file, (), setup, "prefill", 4096).quantised()
    assert answer is not None
    assert answer.answer.startswith("twice the rise of perplexity (0.50%) buys 2: ")
    assert [each["int8_boundaries"] for each in answer.figures] == [2, 4, 8]


def test_what_another_text_has_otherwise_counts_in_the_budget_and_not_in_the_prediction(folder):
    """Two sums of 0.001 nats within 0.0025, unless each may be twice as much on another text."""
    sure = effects("two_shot", [0.001] * 2, [0.001] * 2)
    unsure = sure | {"odd": {"attn_out": [0.001] * 2, "mlp_out": [-0.001] * 2}}
    found = {}
    for name, each in (("sure", sure), ("unsure", unsure)):
        planner = ModePlanner(measured(folder, dense_model(2), [each], 0.0025, forbid=NO_SCATTER), "prefill")
        found[name] = planner.perplexity_rise(planner.best(4096))
    assert found == {"sure": pytest.approx(math.expm1(0.002)), "unsure": pytest.approx(math.expm1(0.001))}
