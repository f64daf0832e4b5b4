"""The page: charts that plotly accepts, findings in words, nothing from outside, no word of complaint in a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.report.page import Page, html_of

from ..cli.commandline import refused, run
from .browser import opened

pytest.importorskip("plotly")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("reports")]  # one process makes the pages for all
SWEPT = ("--vary", "tokens=64,1024,16384", "--vary", "tp=4,8,16")
R1, A2 = "deepseek-r1-h20-tp8", "qwen3-32b-a2-tp2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def planned(folder) -> Path:
    """The page of a strategy file."""
    file = folder / f"{A2}.yaml"
    assert run("plan", A2, "-o", file).code == 0
    result = run("report", file)
    assert (result.code, result.err) == (0, "")
    return file.with_suffix(".html")


@pytest.fixture(scope="module")
def swept(folder) -> Path:
    """The page of a sweep with illegal points."""
    page = folder / "sweep.html"
    result = run("what-if", R1, "--set", "loaded_layers=8", *SWEPT, "--html", page)
    assert (result.code, result.err) == (0, "")
    return page


@pytest.fixture(scope="module")
def long_names(folder) -> Path:
    """The page of 94 layers, with the names of every strategy at its axes."""
    file = folder / "long.yaml"
    assert run("plan", "qwen3-235b-h200-tp8", "-o", file).code == 0
    assert run("report", file).code == 0
    return file.with_suffix(".html")


def charts(page: Path) -> list[dict[str, Any]]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def findings(page: Path) -> list[str]:
    return re.findall(r"<figcaption><h3>(.*?)</h3>", page.read_text())


def test_every_chart_is_one_that_plotly_accepts(planned, swept):
    from plotly.graph_objects import Figure

    def without_themes(value: Any) -> Any:
        if isinstance(value, dict):
            names = ("ink", "muted", "faint", "line")
            return {k: "black" if k == "color" and v in names else without_themes(v) for k, v in value.items()}
        return [without_themes(v) for v in value] if isinstance(value, list) else value

    for page in (planned, swept):
        for chart in charts(page):
            Figure(data=without_themes(chart["traces"]), layout=without_themes(chart["layout"]))


def test_the_charts_that_were_asked_for_are_there(planned):
    kinds = [chart["traces"][0]["type"] for chart in charts(planned)]
    assert kinds == ["scatter", "scatter", "bar", "bar", "heatmap", "scatter", "scatter"]
    speed_up = charts(planned)[0]
    names = {"plan", "all_reduce", "tp_sp", "int8_all_reduce", "stock server", "its best flag"}
    assert {trace["name"] for trace in speed_up["traces"]} == names
    assert [note["text"].strip() for note in speed_up["layout"]["annotations"]] == ["int8_all_reduce from 585"]
    assert all(trace["text"][0] for trace in speed_up["traces"]), "provenance on hover"


def test_titles_state_the_finding(planned, swept):
    assert findings(planned)[0].startswith("Prefill: int8_all_reduce overtakes all_reduce at 585 tokens")
    assert any("INT8 buys" in finding for finding in findings(planned))
    assert any(finding.startswith("The plan gains most at ") for finding in findings(swept))
    assert any("saves" in finding and "latent GEMM" in finding for finding in findings(swept))


def title(page: Path) -> str:
    (found,) = re.findall(r"<h1>(.*?)</h1>", page.read_text())
    return found


def test_the_title_tells_the_gain_over_the_stock_server_then_over_its_flag_then_over_the_library(planned):
    told = title(planned)
    places = [told.find(words) for words in ("over the stock server", "over --enable-", "over plain all-reduce")]
    assert -1 not in places and places == sorted(places)


def test_a_page_of_a_plan_that_a_flag_beats_says_that_first(folder):
    file = folder / "losing.yaml"
    in_sglang = ("--set", "executor=sglang", "--set", "modes.prefill.tokens=[4096,8192]")
    assert run("plan", R1, *in_sglang, "-o", file).code == 0
    assert run("report", file, "--deployment", R1, *in_sglang).code == 0
    words = "The stock flag --enable-attn-tp-input-scattered is faster than this plan in prefill of 4096-8192 tokens"
    assert words in title(file.with_suffix(".html"))


def test_stacked_parts_add_up_to_what_a_choice_changes(planned):
    bars = charts(planned)[2]
    steps = {note["y"]: note["x"] for note in bars["layout"]["annotations"]}
    for index, name in enumerate(bars["traces"][0]["y"]):
        assert sum(trace["x"][index] for trace in bars["traces"]) == pytest.approx(steps[name])


def test_the_map_has_a_row_per_layer_and_a_colour_per_op(planned):
    heat = next(chart["traces"][0] for chart in charts(planned) if chart["traces"][0]["type"] == "heatmap")
    layers = [row for row in heat["text"] if any("layer " in cell for cell in row)]
    assert len(layers) == 64
    assert "layer 12 attn_out: <b>int8_all_reduce(algorithm=gather)</b>" in " ".join(layers[12])


def test_colours_of_a_strategy_are_the_same_in_every_chart(planned, swept):
    colours: dict[str, set[str]] = {}
    for page in (planned, swept):
        for chart in charts(page):
            for trace in chart["traces"]:
                if trace["name" if "name" in trace else "type"] in ("all_reduce", "tp_sp", "int8_all_reduce"):
                    style = trace["line"] if trace["mode"] == "lines" else trace["marker"]
                    colours.setdefault(trace["name"], set()).add(style["color"])
    assert colours
    assert all(len(found) == 1 for found in colours.values())


def test_illegal_points_stand_in_the_table_with_their_reason(swept):
    text = swept.read_text()
    assert text.count("<tr class=illegal>") == 3
    assert "larger than the machine" in text


class _References(HTMLParser):
    """Every attribute that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_a_page_loads_nothing(planned, swept):
    for page in (planned, swept):
        parser = _References()
        parser.feed(re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL))
        assert parser.found == []
        assert "default-src 'none'" in page.read_text()


def test_names_cannot_leave_their_place():
    evil = "</script><script>alert(1)</script>"
    page = html_of(Page(evil, evil, [(evil, evil)], [], answers=[(evil, evil)], notes=[evil]))
    assert "alert(1)</script>" not in page.replace(evil.replace("<", "&lt;").replace(">", "&gt;"), "")


@pytest.mark.slow
def test_a_browser_draws_every_chart_and_has_nothing_to_say(planned, swept, long_names):
    for page in (planned, swept, long_names):
        seen = opened(page, "--dump-dom")
        assert seen.console == []
        drawn = re.findall(r'<div class="chart js-plotly-plot"', seen.dom)
        assert len(drawn) == len(charts(page))
        assert seen.dom.count('class="main-svg"') >= len(drawn)


@pytest.mark.slow
def test_a_page_prints(planned, folder):
    pdf = folder / "page.pdf"
    assert opened(planned, f"--print-to-pdf={pdf}").console == []
    assert pdf.stat().st_size > 20_000


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
