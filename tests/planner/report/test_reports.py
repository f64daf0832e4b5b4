"""The page: what its charts show and its tables hold, findings in words, nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from commplan.planner.report.bar_plot import BarPlot
from commplan.planner.report.chart import Chart
from commplan.planner.report.map_plot import MapPlot
from commplan.planner.report.page import Page, html_of
from commplan.planner.report.strategy_report import report_strategy
from commplan.planner.report.table import Cell, Table
from commplan.planner.report.xy_plot import XYPlot
from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.words import PROVENANCES

from ..cli.commandline import refused, run
from .conftest import A2, R1

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("reports")]  # one process makes the pages for all


@pytest.fixture(scope="module")
def page(folder: Path, planned: Path) -> Page:
    """What the page of a strategy file says."""
    return report_strategy(str(planned.with_suffix(".yaml")), None, (), folder / "same.html")


@pytest.fixture(scope="module")
def charts(page: Page) -> list[Chart]:
    return [chart for _, group in page.sections for chart in group]


def findings(page: Path) -> list[str]:
    found = re.findall(r"<figcaption><h3>(.*?)</h3>", page.read_text())
    return [re.sub(r"<.*?>", "", finding) for finding in found]


def first(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def column(table: Table, name: str) -> list[str]:
    index = next(k for k, head in enumerate(table.columns) if head.split(" --")[0] == name)
    return [first(row[index]) for row in table.rows]


# ---- charts ----------------------------------------------------------------------------------------------------------


def test_the_charts_that_were_asked_for_are_there(charts):
    kinds = [type(chart.plot) for chart in charts]
    assert kinds == [XYPlot, XYPlot, BarPlot, BarPlot, MapPlot, XYPlot, XYPlot]
    speed_up = charts[0].plot
    names = {"plan", "all_reduce", "tp_sp", "int8_all_reduce", "quantized_all_reduce", "stock server", "its best flag"}
    assert {key.name for key in speed_up.keys} == {each.key.name for each in speed_up.series} == names
    assert [mark.words for mark in speed_up.marks] == ["int8_all_reduce from 522"]


def test_the_table_of_a_curve_has_the_figures_of_its_lines_and_what_they_rest_on(charts):
    for chart in charts[:2]:
        table, grounds = chart.tables
        for series in chart.plot.series:
            assert column(table, "tokens") == [f"{x:,}" for x, _ in series.points]
            told = ["–" if y is None else f"{y:.3f}x" for _, y in series.points]
            assert column(table, series.key.name) == told
            assert series.key.name in column(grounds, "line")
        assert {words.removesuffix(", extrapolated") for words in column(grounds, "wire times from")} <= {*PROVENANCES}
        assert set(column(grounds, "compute from")) <= {*PROVENANCES, "–"}
        assert "exact" in column(grounds, "numerics")


def test_the_table_of_bars_has_their_lengths_and_what_each_rests_on(charts):
    for chart in charts[2:4]:
        (table,) = chart.tables
        for bar, row in zip(chart.plot.bars, table.rows, strict=True):
            assert first(row[0]) == bar.name
            assert first(row[1]) in bar.note
            shown = [in_ms(cell.text) for cell in row[2:] if isinstance(cell, Cell)]
            assert shown[:-1] == pytest.approx(bar.parts, rel=0.01)
            assert all(cell.note for cell in row[2:] if isinstance(cell, Cell))
            # With the compute that no choice changes, the parts are the step.
            assert sum(shown) == pytest.approx(in_ms(first(row[1])), rel=0.01)


def in_ms(words: str) -> float:
    value, unit = words.replace(",", "").split()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def test_the_table_of_a_frontier_has_a_row_per_point(charts):
    for chart in charts[5:]:
        (table,) = chart.tables
        points = [(each.key.name, x, y) for each in chart.plot.series for x, y in each.points]
        rows = [(first(row[0]), float(first(row[1])), in_ms(first(row[2]))) for row in table.rows]
        assert [name for name, _, _ in rows] == [name for name, _, _ in points]
        assert [x for _, x, _ in rows] == pytest.approx([x for _, x, _ in points], abs=1e-4)
        assert [y for _, _, y in rows] == pytest.approx([y for _, _, y in points], rel=0.01)


def test_the_map_and_its_table_cover_every_layer(charts):
    plot, (table,) = charts[4].plot, charts[4].tables
    assert plot.rows == 64
    for panel in plot.panels:
        where = " ".join(panel.heading)
        covered = [(block.column, layer) for block in panel.blocks for layer in range(block.first, block.last + 1)]
        assert len(covered) == len(set(covered))
        for block in panel.blocks:
            tokens, layers, boundary, op = map(first, table.rows[block.row])
            ends = f"{block.first}" if block.first == block.last else f"{block.first}–{block.last}"
            assert (tokens, layers, boundary) == (where, ends, plot.columns[block.column])
            assert op.split("(")[0] == plot.keys[block.key].name
        sums = [layer for block_column, layer in covered if block_column in (1, 3)]
        assert sorted(sums) == sorted(2 * list(range(64))), "partial sums travel in every layer"
    assert "int8_all_reduce(algorithm=gather, impl=composed_norm)" in column(table, "op")
    assert {key.name for key in plot.keys} <= set(KINDS)


def test_colours_of_a_strategy_are_the_same_in_every_chart(charts):
    colours: dict[str, set[str]] = {}
    for chart in charts:
        for key in chart.plot.keys:
            colours.setdefault(key.name, set()).add(key.colour)
    shared = {name: found for name, found in colours.items() if name in ("plan", "tp_sp")}
    assert len(shared) == 2
    assert all(len(found) == 1 for found in shared.values())


def test_every_row_of_a_table_that_has_a_figure_is_found_in_every_picture(charts):
    for chart in charts:
        for width in (320, 560, 960):
            rows = {int(row) for row in re.findall(r'data-row="(\d+)"', chart.plot.drawn(width))}
            assert rows == set(range(len(chart.tables[0].rows)))


def test_titles_state_the_finding(planned, swept):
    assert findings(planned)[0].startswith("Prefill: int8_all_reduce overtakes all_reduce at 522 tokens")
    assert any("INT8 buys" in finding for finding in findings(planned))
    assert any(finding.startswith("The plan gains most at ") for finding in findings(swept))
    assert any("saves" in finding and "latent GEMM" in finding for finding in findings(swept))


def title(page: Path) -> str:
    (found,) = re.findall(r"<h1>(.*?)</h1>", page.read_text())
    return re.sub(r"<.*?>", "", found)


def test_the_title_tells_the_gain_over_the_stock_server_then_over_its_flag_then_over_the_library(planned):
    told = title(planned)
    places = [told.find(words) for words in ("over the stock server", "over --enable-", "over plain all-reduce")]
    assert -1 not in places and places == sorted(places)


def test_a_page_of_a_plan_that_a_flag_beats_says_that_first(folder):
    file = folder / "losing.yaml"
    early = "numerics.pin=[{op: all_reduce, boundary: mlp_out}]"  # by itself it would gather late, as the flag does
    in_sglang = ("--set", "executor=sglang", "--set", "modes.prefill.tokens=[4096,8192]", "--set", early)
    assert run("plan", R1, *in_sglang, "-o", file).code == 0
    assert run("report", file, "--deployment", R1, *in_sglang).code == 0
    words = "The stock flag --enable-attn-tp-input-scattered is faster than this plan in prefill of 4096-8192 tokens"
    assert words in title(file.with_suffix(".html"))


def test_illegal_points_stand_in_the_table_with_their_reason(swept):
    text = swept.read_text()
    assert text.count('<tr class="illegal">') == 3
    assert "larger than the machine" in text


# ---- the page --------------------------------------------------------------------------------------------------------


class _Elements(HTMLParser):
    """Attributes that could load something, ids, headings, and whether every element ends where it should."""

    VOID = ("meta", "wbr", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def test_a_page_loads_nothing_and_runs_its_own_script_alone(pages):
    for page in pages.values():
        text = page.read_text()
        elements = _Elements(text)
        assert all(place.removeprefix("#") in elements.ids for place in elements.loads)
        assert "default-src 'none'; script-src 'sha256-" in text
        assert "script-src 'unsafe-inline'" not in text


def test_elements_are_nested_ids_are_single_and_headings_leave_out_no_level(pages):
    for page in pages.values():
        elements = _Elements(page.read_text())
        assert elements.stack == []
        assert len(elements.ids) == len(set(elements.ids))
        assert elements.headings[0] == 1
        assert elements.headings.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(elements.headings))


def test_a_page_is_small(pages):
    assert all(page.stat().st_size < 500_000 for page in pages.values())


def test_a_page_of_a_large_sweep_draws_some_of_it_says_so_and_is_no_larger_than_it_should_be(folder):
    page = folder / "large.html"
    sweep = ("--vary", "tokens=1..520:+1", "--vary", "tp=1,2")
    assert run("what-if", "qwen3-0.6b-cpu-tp2", *sweep, "--html", page).code == 0
    text = page.read_text()
    assert page.stat().st_size < 1_500_000
    assert "<p>1,040 points; 41 of 520 values of tokens are drawn.</p>" in text
    assert "The first 1000 of 1040 points; --csv has them all." in text


def test_the_same_file_gives_the_same_page(folder, planned):
    again = folder / "again.html"
    assert run("report", planned.with_suffix(".yaml"), "-o", again).code == 0
    assert again.read_bytes() == planned.read_bytes()


def test_names_cannot_leave_their_place():
    evil = "</script><script>alert(1)</script>"
    table = Table(evil, [evil, evil], [[evil, Cell(evil, evil)]], note=evil)
    page = html_of(Page(evil, evil, [(evil, evil)], [], answers=[(evil, evil)], tables=[table], notes=[evil]))
    assert "<script>alert" not in page
    assert _Elements(page).stack == []


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_file_for_something_else_is_refused(folder, planned):
    file = planned.with_suffix(".yaml")
    error = refused("report", file, "--deployment", R1, "-o", folder / "never.html")
    assert error["field"] == "model.fingerprint"
    assert not (folder / "never.html").exists()
    assert refused("report", folder / "none.yaml")["file"].endswith("none.yaml")


def test_a_deployment_that_is_no_preset_has_to_be_named(folder, planned):
    mine = folder / "mine.yaml"
    mine.write_text(
        planned.with_suffix(".yaml").read_text().replace(f"deployment: {{name: {A2}", "deployment: {name: mine")
    )
    assert refused("report", mine)["field"] == "deployment.name"
    assert run("report", mine, "--deployment", A2, "-o", folder / "mine.html").code == 0


def test_a_changed_machine_is_said(folder, planned):
    out = folder / "changed.html"
    link = "hardware.links.intra_node.bandwidth_gb_per_s=100"
    assert run("report", planned.with_suffix(".yaml"), "--set", link, "-o", out).code == 0
    assert "the hardware has changed" in out.read_text().lower()
