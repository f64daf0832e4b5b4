"""Under an error budget many layers alike are searched by how often each step is taken: the optimum stays the same."""

from __future__ import annotations

import random

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search import alike, error_budget
from commplan.planner.search.error_budget import within_budget
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.shortest_path import Step, cheapest_path


class _Edge:
    """All that a path asks of an edge."""

    def __init__(self, after):
        self.after = after


def offered(draw, befores, afters, most):
    """Steps of one stage between all states: by rising weight and falling error."""
    steps = {}
    for before in befores:
        for after in afters:
            weights = sorted(draw.sample(range(1, most), draw.randint(1, 4)))
            errors = [1000 * e for e in sorted(draw.sample(range(most), len(weights)), reverse=True)]
            steps.setdefault(before, {})[after] = [
                Step(w, e, (_Edge(after),)) for w, e in zip(weights, errors, strict=True)
            ]
    return steps


def forward(draw, layers):
    """Layers alike between other stages; a small range of weights makes many equal sums."""
    states, most = "abc"[: draw.randint(1, 3)], draw.choice([6, 30, 1000])
    layer = offered(draw, states, states, most)
    first = [offered(draw, states, states, most) for _ in range(draw.randint(0, 2))]
    last = offered(draw, states, "z", most)
    return [offered(draw, [None], states, most), *first, *[layer] * layers, last]


def sums(path):
    return sum(step.weight for step in path), sum(step.error for step in path)


def all_sums(stages):
    """What no other path is as good as in weight and error, found without bounds."""
    fronts = {None: {(0, 0)}}
    for steps in stages:
        found = {}
        for before, labels in fronts.items():
            for after, options in steps.get(before, {}).items():
                found.setdefault(after, set()).update((w + s[0], e + s[1]) for w, e in labels for s in options)
        fronts = {}
        for state, labels in found.items():
            kept = []
            for label in sorted(labels):
                if not kept or label[1] < kept[-1][1]:
                    kept.append(label)
            fronts[state] = kept
    return [label for labels in fronts.values() for label in labels]


def check_path(stages, path):
    state = None
    for steps, step in zip(stages, path, strict=True):
        after = step.edges[-1].after
        assert step in steps[state][after]
        state = after


@pytest.mark.parametrize("alike_layers", [True, False])
@pytest.mark.parametrize("layers", [7, 12])
def test_the_optimum_of_random_layers_is_found(monkeypatch, layers, alike_layers):
    if not alike_layers:
        monkeypatch.setattr(error_budget, "longest_run", lambda _: None)
    draw = random.Random(layers)
    for _ in range(150):
        stages = forward(draw, layers)
        ends = all_sums(stages)
        least, most = min(e for _, e in ends), max(e for _, e in ends)
        budget = draw.randint(least, most)
        path = within_budget(stages, cheapest_path(stages), budget, None).path
        check_path(stages, path)
        weight, error = sums(path)
        assert error <= budget
        assert weight == min(w for w, e in ends if e <= budget)


def test_a_path_that_spends_the_whole_budget_is_not_given_up_for_a_heavier_one():
    """A search for less weight also finds paths that are heavier by less than they save in error."""
    draw = random.Random(5)
    spent = 0
    for _ in range(300):
        stages = forward(draw, 4)
        ends = all_sums(stages)
        weight, budget = draw.choice(ends)
        path = within_budget(stages, cheapest_path(stages), budget, None).path
        spent += sums(path) == (weight, budget)
        assert sums(path)[0] == min(w for w, e in ends if e <= budget)
    assert spent > 100


def test_a_run_of_layers_is_closed_with_the_weight_and_the_error_of_label_setting(monkeypatch):
    draw = random.Random(3)
    stages = [forward(draw, 12) for _ in range(150)]
    budgets = [draw.randint(min(e for _, e in all_sums(each)), max(e for _, e in all_sums(each))) for each in stages]

    def found():
        return [sums(within_budget(s, cheapest_path(s), b, None).path) for s, b in zip(stages, budgets, strict=True)]

    by_counts = found()
    monkeypatch.setattr(error_budget, "longest_run", lambda _: None)
    assert by_counts == found()


@pytest.fixture
def looked_at(monkeypatch):
    """How many partial paths were looked at."""
    counts = [0]
    of_walks, of_labels = alike.undominated, error_budget._Labels.undominated

    def walks(found):
        counts[0] += len(found)
        return of_walks(found)

    def labels(self, found, most_error):
        counts[0] += len(found)
        return of_labels(self, found, most_error)

    monkeypatch.setattr(alike, "undominated", walks)
    monkeypatch.setattr(error_budget._Labels, "undominated", labels)
    return counts


BUDGETED = ("numerics.loosest=quantized", "numerics.error_budget=0.1")


def test_few_partial_paths_of_layers_alike_are_looked_at(looked_at, monkeypatch):
    planner = ModePlanner(load_setup("glm-5.2-h200-tp8", BUDGETED), "prefill")
    plan = planner.best(16384)
    few, looked_at[0] = looked_at[0], 0
    monkeypatch.setattr(error_budget, "longest_run", lambda _: None)
    assert planner.best(16384) == plan
    assert 20 * few < looked_at[0]
    assert few < 10_000


def test_a_ceiling_that_rises_from_the_bound_spares_most_partial_paths(looked_at, monkeypatch):
    planner = ModePlanner(load_setup("glm-5.2-h200-tp8", BUDGETED), "prefill")
    plan = planner.best(3000)
    few, looked_at[0] = looked_at[0], 0
    monkeypatch.setattr(error_budget, "_FIRST_CEILING", 0)
    assert planner.best(3000) == plan
    assert 3 * few < looked_at[0]
    assert few < 100_000
