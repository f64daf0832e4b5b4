"""A strategy file is canonical: what is read and written again is the same bytes, and no line of it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import yaml

from commplan.planner.descriptions.loader import preset_names
from commplan.planner.strategy.file import StrategyFile, dump, load, parse, plan_hash, problems, save
from commplan.planner.strategy.file.document import FasterRival, joined

Planned = Callable[[str], str]
DEPLOYMENTS = preset_names("deployments")


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_reading_and_writing_again_gives_the_same_bytes(deployment: str, planned: Planned) -> None:
    text = planned(deployment)
    assert dump(parse(text)) == text


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_every_plan_is_legal_without_its_hardware(deployment: str, planned: Planned) -> None:
    assert list(problems(parse(planned(deployment)))) == []


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_another_reader_of_yaml_sees_the_same_file(deployment: str, planned: Planned) -> None:
    data = yaml.safe_load(planned(deployment))
    strategy = parse(planned(deployment))
    assert next(iter(data)) == "schema" and list(data)[-1] == "end"
    assert data["model"]["num_hidden_layers"] == strategy.model.num_hidden_layers
    assert {m: [r["tokens"] for r in ranges] for m, ranges in data["modes"].items()} == {
        mode: [[r.first, r.last] for r in ranges] for mode, ranges in strategy.modes.items()
    }


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_run_of_equal_layers_is_one_line(deployment: str, planned: Planned) -> None:
    data = yaml.safe_load(planned(deployment))
    for ranges in data["modes"].values():
        for item in ranges:
            runs = [{k: v for k, v in line.items() if k != "layers"} for line in item["layers"]]
            assert all(a != b for a, b in pairwise(runs))


def test_a_saved_file_loads_as_what_was_saved(r1: str, tmp_path) -> None:
    strategy = parse(r1)
    save(strategy, tmp_path / "plan.yaml")
    assert load(tmp_path / "plan.yaml") == strategy
    assert (tmp_path / "plan.yaml").read_bytes() == r1.encode()


def without_predictions(strategy: StrategyFile) -> StrategyFile:
    modes = {m: tuple(replace(r, predicted=None) for r in ranges) for m, ranges in strategy.modes.items()}
    return replace(strategy, modes=modes)


def test_the_hash_is_of_what_runs_not_of_what_was_predicted(r1: str) -> None:
    strategy = parse(r1)
    assert plan_hash(strategy) == plan_hash(without_predictions(strategy)) == plan_hash(parse(r1))
    assert len(plan_hash(strategy)) == 16
    edited = parse(
        r1.replace(
            "attn_out: all_reduce, mlp_out: all_reduce", "attn_out: all_reduce, mlp_out: reduce_scatter_all_gather", 1
        )
    )
    assert plan_hash(edited) != plan_hash(strategy)
    moved = parse(r1.replace("[1, 112]", "[1, 111]", 1).replace("[113, ", "[112, ", 1))
    assert plan_hash(moved) not in (plan_hash(strategy), plan_hash(edited))


SPELLINGS = [
    ("mlp_out: all_reduce}", "mlp_out: {all_reduce: {}}}"),
    ("mlp_out: all_reduce}", "mlp_out: {all_reduce: null}}"),
    ("mlp_out: all_reduce}", "attn_in: none, mlp_in: none, mlp_out: all_reduce}"),
    ("layers: 0-60", "layers: '0-30,31-60'"),
    (
        "    - {layers: 0-60, attn_out: all_reduce, mlp_out: all_reduce}\n",
        "    - {layers: 1-60, attn_out: all_reduce, mlp_out: all_reduce}\n"
        "    - {layers: 0, attn_out: all_reduce, mlp_out: all_reduce}\n",
    ),
    ("    embed_out: all_reduce\n", "    head_in: none\n    embed_out: all_reduce\n"),
    ("numerics: reordered\n", "# looser than exact\nnumerics: 'reordered'   # or so\n\n"),
    ("moe_layers: 3-60", "moe_layers: '3,4-59, 60'"),
]


@pytest.mark.parametrize(("old", "new"), SPELLINGS)
def test_other_spellings_of_a_plan_are_written_in_the_canonical_one(old: str, new: str, r1: str) -> None:
    assert old in r1
    other = r1.replace(old, new, 1)
    assert other != r1
    assert dump(parse(other)) == r1


def test_a_producer_may_be_named_by_its_number(r1: str) -> None:
    """`from: 6.mlp_out` in layer 7 is `previous.mlp_out`, which equal layers share."""
    line = next(line for line in r1.splitlines() if "layers: 1-60" in line)
    split = [
        line.replace("1-60", "1-6"),
        line.replace("1-60", "7").replace("previous.mlp_out", "6.mlp_out"),
        line.replace("1-60", "8-60"),
    ]
    other = parse(r1.replace(line, "\n".join(split), 1))
    assert list(problems(other)) == []
    assert dump(other) == r1


def test_names_of_any_kind_survive(r1: str) -> None:
    for name in ("a: b", "#1", "yes", "1e5", "😀", "null", "- x", "0x10", "tab\there", '"', "\\", "2026-01-01"):
        strategy = parse(r1)
        named = replace(strategy, model=replace(strategy.model, name=name))
        assert parse(dump(named)) == named
        assert yaml.safe_load(dump(named))["model"]["name"] == name


def with_gains(text: str) -> str:
    """The first range of a file, held against the stock server."""
    flag = "best_stock_flag: {name: --fast, step_us: 46000.0}"
    more = f"stock_us: 47000.0, stock_source: table, {flag}, library_us: 47700.0, faster_rivals: "
    rivals = "[{flag: --fast, tokens: [9, 112], lead: 0.02}, {flag: null, tokens: [1, 8], lead: 0.01}]"
    return text.replace("all_reduce_us: ", f"{more}{rivals}, all_reduce_us: ", 1)


def test_an_older_file_says_nothing_of_the_stock_server_and_stays_as_it_is(r1: str) -> None:
    predicted = parse(r1).modes["prefill"][0].predicted
    assert predicted is not None
    assert (predicted.stock_us, predicted.best_stock_flag, predicted.library_us) == (None, None, None)
    assert "stock" not in dump(parse(r1))


def test_what_a_plan_is_held_against_is_read_and_written(r1: str) -> None:
    strategy = parse(with_gains(r1))
    predicted = strategy.modes["prefill"][0].predicted
    assert predicted is not None
    assert (predicted.stock_us, predicted.best_stock_flag) == (47000.0, ("--fast", 46000.0))
    assert [(rival.flag, rival.first) for rival in predicted.faster_rivals] == [("--fast", 9), (None, 1)]
    assert parse(dump(strategy)) == strategy
    assert plan_hash(strategy) == plan_hash(parse(r1))


def test_rivals_of_ranges_that_touch_are_told_as_one_and_flags_first() -> None:
    def rival(flag: str | None, first: int, last: int, lead: float = 0.1) -> FasterRival:
        return FasterRival(flag, first, last, lead)

    given = [
        ("prefill", rival(None, 1, 4)),
        ("prefill", rival("--fast", 5, 8)),
        ("prefill", rival("--fast", 9, 16, 0.3)),
        ("prefill", rival("--fast", 20, 32)),
        ("decode", rival("--fast", 33, 40)),
    ]
    assert joined(given) == (
        ("prefill", rival("--fast", 5, 16, 0.3)),
        ("prefill", rival("--fast", 20, 32)),
        ("decode", rival("--fast", 33, 40)),
        ("prefill", rival(None, 1, 4)),
    )
