"""Prediction against measurement: errors and regrets of invented measurements are what they were made to be."""

from __future__ import annotations

import pytest

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.backtest.judging import (
    PLAN,
    contests,
    errors_of,
    judge,
    key_of,
    measured_edges,
    predicted_us,
)
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError

ROUNDS = 5


@pytest.fixture(scope="module")
def setup():
    return load_setup("deepseek-r1-h200-tp2", ("numerics.loosest=quantized",))


@pytest.fixture(scope="module")
def chosen(setup):
    return plan_setup(setup)


def invented(setup, contest, factor):
    """Samples that are the predictions times factor(plan, round)."""
    planner = ModePlanner(setup, contest.mode)
    return {
        name: {
            key_of(edge): [predicted_us(planner, edge, contest.tokens) * factor(name, n) for n in range(ROUNDS)]
            for edge in measured_edges(plan)
        }
        for name, plan in contest.plans.items()
    }


def test_a_prediction_that_comes_true_has_no_error(setup, chosen):
    for contest in contests(setup, chosen, "prefill", [1, 1000, 16384], "plan.yaml"):
        boundaries, outcome = judge(setup, contest, invented(setup, contest, lambda *_: 1.0))
        assert errors_of(boundaries) == (0.0, 0.0)
        assert outcome.predicted_us == pytest.approx(outcome.measured_us)
        assert outcome.alternative != PLAN
        assert outcome.low <= outcome.regret <= outcome.high


def test_an_error_is_relative_to_what_was_measured(setup, chosen):
    (contest,) = contests(setup, chosen, "prefill", [4096], "plan.yaml")
    boundaries, _ = judge(setup, contest, invented(setup, contest, lambda *_: 2.0))
    assert errors_of(boundaries) == (0.5, 0.5)


def test_a_plan_that_takes_longer_than_a_rival_has_that_regret(setup, chosen):
    """Twice as long at the boundaries, on top of the compute that stays."""
    (contest,) = contests(setup, chosen, "prefill", [16384], "plan.yaml")
    _, fair = judge(setup, contest, invented(setup, contest, lambda *_: 1.0))
    _, outcome = judge(setup, contest, invented(setup, contest, lambda name, _: 2.0 if name == PLAN else 1.0))
    rival = (fair.measured_us + fair.compute_us) / fair.regret
    assert outcome.regret == pytest.approx((2 * fair.measured_us + fair.compute_us) / rival)
    assert outcome.low > 1.02


def test_the_interval_holds_the_rounds_that_differ(setup, chosen):
    (contest,) = contests(setup, chosen, "decode", [64], "plan.yaml")
    _, outcome = judge(setup, contest, invented(setup, contest, lambda name, n: 1 + n / 50 if name == PLAN else 1.0))
    assert outcome.low < outcome.regret < outcome.high


def test_every_rival_is_another_plan_and_legal_at_its_count(setup, chosen):
    for contest in contests(setup, chosen, "prefill", [1, 16384], "plan.yaml"):
        ops = [tuple(edge.op for edge in plan.edges) for plan in contest.plans.values()]
        assert len(set(ops)) == len(ops) > 1
        for file in contest.files.values():
            (only,) = file.modes["prefill"]
            assert (only.first, only.last) == (contest.tokens, contest.tokens)


def test_a_plan_of_another_model_is_refused(chosen):
    with pytest.raises(InputError) as caught:
        contests(load_setup("qwen3-32b-h200-tp2"), chosen, "prefill", [1], "plan.yaml")
    assert caught.value.field == "model.fingerprint"
