"""What the tables say of rows: medians, what is saved of the gap, scatter, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SETTING = {"card": "two cards", "shape": "qwen3-32b", "layers": 64, "links": "as they are"}


def rows(
    run: str, tokens: int, ms: Mapping[str, list[float]], kind: str = "ttft", **setting: Any
) -> list[dict[str, Any]]:
    size = {"ttft": "tokens", "decode": "batch"}[kind]
    shared = {**SETTING, "start": 1, "group": "+".join(ms), "run": run, "what": kind, size: tokens, **setting}
    return [{**shared, "configuration": name, "ms": values} for name, values in ms.items()]


TWO_RUNS = [
    *rows("a", 4096, {"unmodified": [280.0, 278.0, 279.0], "quantised": [265.0, 264.0, 266.0], "bound": [254.0]}),
    # A start in which everything was slower: only what stood side by side is compared.
    *rows("b", 4096, {"unmodified": [299.0], "quantised": [284.0], "again": [298.5]}),
]


@pytest.fixture
def comparison(bench):
    return bench.tables.Comparison(bench.kept.Kept(TWO_RUNS), bench.kept.Key("ttft", 4096))


def test_a_configuration_is_compared_with_the_unmodified_server_beside_it(comparison):
    assert comparison.saved("quantised") == pytest.approx(14.5)  # 14 and 15, not what medians over all starts differ by
    assert comparison.ms("unmodified") == 289.0


def test_the_share_is_of_the_gap_to_no_communication(comparison):
    assert comparison.share("quantised") == pytest.approx(14.5 / 25)
    assert comparison.share("reordered") is None


def test_scatter_is_that_of_two_unmodified_servers_side_by_side(comparison):
    assert comparison.scatter == pytest.approx(0.5)
    assert comparison.from_start_to_start() == 20.0


def test_without_a_second_one_scatter_is_from_start_to_start(bench):
    kept = bench.kept.Kept([row for row in TWO_RUNS if row["configuration"] != "again"])
    comparison = bench.tables.Comparison(kept, bench.kept.Key("ttft", 4096))
    assert comparison.scatter == 20.0
    assert comparison.share("quantised") == pytest.approx(14.5 / 25)  # of servers side by side: no start matters


def test_no_share_is_told_where_no_communication_is_no_faster(bench):
    kept = bench.kept.Kept(rows("a", 16, {"unmodified": [10.0], "bound": [10.5], "reordered": [9.0]}))
    assert bench.tables.Comparison(kept, bench.kept.Key("ttft", 16)).share("reordered") is None


def test_no_share_is_told_where_the_gap_is_within_the_scatter(bench):
    ms = {"unmodified": [2.9], "again": [2.6], "bound": [2.8], "quantised": [3.0]}
    comparison = bench.tables.Comparison(bench.kept.Kept(rows("a", 16, ms, "decode")), bench.kept.Key("decode", 16))
    assert comparison.share("quantised") is None


@pytest.mark.parametrize(("layers", "told"), [(64, True), (8, False)])
def test_aims_are_those_of_the_whole_model(bench, layers: int, told: bool):
    found = bench.kept.Kept([{**row, "layers": layers} for row in TWO_RUNS])
    assert ("aimed at" in bench.tables.tables(found, markdown=False)) is told


def verdicts(bench, found: list[dict[str, Any]]) -> list[str]:
    kept = bench.kept.Kept(found)
    keys = [key for kind in ("ttft", "decode") for key in kept.keys(kind)]
    return list(bench.tables.verdicts({key: bench.tables.Comparison(kept, key) for key in keys}))


def test_an_aim_that_is_missed_says_by_how_much(bench):
    assert verdicts(bench, TWO_RUNS) == ["quantised, 4096 tokens: 58% of the gap, aimed at 62%: missed by 4%"]


def test_nowhere_slower_means_by_no_more_than_the_scatter(bench):
    ms = {"unmodified": [20.0], "again": [20.5], "reordered": [20.4], "quantised": [20.6]}
    found = verdicts(bench, rows("a", 512, ms))
    assert "quantised, 512 tokens: +0.60 ms beside a scatter of 0.50, aimed at not slower: missed" in found
    assert "reordered, 512 tokens: +0.40 ms beside a scatter of 0.50, aimed at not slower: met" in found


def test_a_plan_of_the_servers_own_kernels_may_differ_in_neither_direction(bench):
    ms = {"unmodified": [20.0], "again": [20.5], "server_kernels": [19.0]}
    (found,) = verdicts(bench, rows("a", 1, ms, "decode"))
    assert (
        found == "server_kernels, decode of 1: -1.00 ms beside a scatter of 0.50, aimed at within the scatter: missed"
    )


def test_the_servers_best_flag_is_a_rival(bench):
    ms = {"unmodified": [208.7], "layernorm_sp": [204.1], "quantised": [202.5]}
    assert "quantised, 16384 tokens: faster than layernorm_sp by 1.60 ms" in verdicts(bench, rows("a", 16384, ms))


def test_settings_are_never_mixed(bench):
    other = rows("c", 4096, {"unmodified": [44.0]}, layers=8)
    text = bench.tables.tables(bench.kept.Kept([*TWO_RUNS, *other]), markdown=True)
    of_eight, of_64 = text.split("## ")[1:]
    assert of_eight.startswith("qwen3-32b, 8 layers, two cards") and "44.00" in of_eight
    assert of_64.startswith("qwen3-32b, 64 layers, two cards") and "44.00" not in of_64


def test_cells_say_the_difference_and_rows_the_scatter(bench):
    text = bench.tables.tables(bench.kept.Kept(TWO_RUNS), markdown=True)
    assert "| quantised: plan, INT8 allowed | 274.5 (-14.50) |" in text
    assert "| two unmodified side by side, at most | 0.50 |" in text
    assert "| quantised | 58% |" in text


def test_servers_that_never_came_up_are_told_of(bench):
    server = {**SETTING, "start": 1, "group": "x", "run": "a", "what": "server", "configuration": "reordered"}
    wrong = {**server, "what": "counters", "differences": ["rank 0: ran 3 times, planned 4"]}
    found = [*TWO_RUNS, {**server, "up": False, "says": {}}, {**server, "up": True, "says": {"x": 1}}, wrong]
    text = bench.tables.tables(bench.kept.Kept(found), markdown=False)
    assert "reordered: 1 of 2 starts came up; x 1; counters differ: rank 0: ran 3 times, planned 4" in text


@pytest.mark.parametrize(
    ("shape", "on", "counts"), [("qwen3-235b", False, False), ("qwen3-235b", True, True), ("qwen3-32b", False, True)]
)
def test_rows_count_only_beside_a_server_with_its_default_fusion(bench, shape: str, on: bool, counts: bool):
    shared = {**SETTING, "shape": shape, "start": 1, "group": "x", "run": "a"}
    told = {**shared, "what": "fusion", "configuration": "unmodified", "on": on}
    found = bench.kept.Kept([*rows("a", 16, {"unmodified": [1.0]}, shape=shape), told])
    assert ("DOES NOT COUNT" not in bench.tables.tables(found, markdown=True)) is counts


def test_a_line_that_was_cut_off_is_left_out(bench, tmp_path: Path, capsys):
    path = tmp_path / "rows.jsonl"
    write = bench.kept.Writer(path, **SETTING, start=1, group="unmodified", run="a")
    write(what="ttft", configuration="unmodified", tokens=16, ms=[1.0])
    with path.open("a") as file:
        file.write('{"what": "ttft", "conf')
    assert len(bench.kept.Kept.read(path).rows) == 1
    assert "cut off" in capsys.readouterr().out


def test_measured_pages_are_what_their_rows_say(bench):
    for rows_file in sorted((bench.folder.parents[1] / "docs" / "measured").glob("sglang-*.jsonl")):
        page = rows_file.with_suffix(".md")
        said = bench.tables.tables(bench.kept.Kept.read(rows_file), markdown=True)
        assert page.read_text() == bench.script.HEAD.format(rows_file.name) + said + "\n", page.name


def test_the_measured_proof_is_what_its_rows_say(bench):
    rows_file = bench.folder.parents[1] / "docs" / "measured" / "proof-sglang.jsonl"
    said = bench.proof.shown(bench.kept.Kept.read(rows_file).rows, markdown=True)
    assert rows_file.with_suffix(".md").read_text() == bench.proof.HEAD.format(rows_file.name) + said + "\n"
