"""Pages in a real browser: nothing cut, covered or faint on a phone and a desk, by day and night; keyboard; paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .browser import Tab, pages_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("reports")]  # one process makes the pages for all

PAGES = ["plan", "sharded", "long", "sweep", "many"]
PHONE, DESK, PAPER = 390, 1280, 688  # px; paper: A4 within its margins
LOOKS = (Path(__file__).parent / "looks.js").read_text()


@pytest.fixture
def opened(tab: Tab, pages: dict[str, Path]):
    """Opens a page, and gives it the questions."""

    def open_page(name: str, width: int = DESK, theme: str = "light", media: str = "") -> Tab:
        tab.open(pages[name], width, theme, media)
        tab.ask(LOOKS + ";0")
        return tab

    return open_page


def wrong(tab: Tab, *questions: str) -> dict[str, Any]:
    """The answers of looks.js that name something."""
    answers = {question: tab.ask(f"looks.{question}()") for question in questions}
    return {question: answer for question, answer in answers.items() if answer}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_legible(opened, name: str, width: int, theme: str):
    tab = opened(name, width, theme)
    assert wrong(tab, "overflow", "pictures", "cut", "covered", "small", "faint", "unreachable") == {}
    tab.ask("document.querySelectorAll('details').forEach((each) => { each.open = true; }); 0")
    assert wrong(tab, "overflow", "cut", "faint", "unreachable") == {}
    assert tab.console == []


@pytest.mark.parametrize("width", [320, 540, 768, 920])
@pytest.mark.parametrize("name", PAGES)
def test_between_phone_and_desk_it_is_too(opened, name: str, width: int):
    assert wrong(opened(name, width), "overflow", "pictures", "cut", "covered", "small") == {}


def test_a_theme_is_the_readers(opened):
    paper = "getComputedStyle(document.body).backgroundColor"
    assert opened("plan", theme="light").ask(paper) != opened("plan", theme="dark").ask(paper)


# ---- the keyboard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["plan", "sweep"])
def test_the_tab_key_reaches_everything_in_order_and_shows_where_it_is(opened, name: str, theme: str):
    tab = opened(name, PHONE, theme)
    count = tab.ask("looks.interactive().length")
    assert count > 30
    for place in range(count):
        tab.press("Tab")
        assert tab.ask("looks.focused()") == place
        assert tab.ask("looks.outlined()"), tab.ask("looks.named(document.activeElement)")


def test_the_first_link_skips_to_the_report(opened):
    tab = opened("plan")
    tab.press("Tab")
    assert tab.ask("document.activeElement.getBoundingClientRect().top") >= 0
    tab.press("Enter")
    tab.press("Tab")
    assert tab.ask("document.activeElement.closest('main') !== null")


def test_links_of_the_parts_lead_to_their_headings(opened):
    tab = opened("sweep")
    links = tab.ask("[...document.querySelectorAll('nav a')].map((a) => [a.textContent, a.hash])")
    assert [name for name, _ in links][:3] == ["What people ask", "The sweep", "Which strategy wins where"]
    for name, place in links:
        assert tab.ask(f"document.querySelector('{place}').textContent") == name


CHART = "document.querySelectorAll('.plot')[{}]"


def row_of(tab: Tab, chart: int, row: int) -> list[str]:
    """The cells of a row of a chart's table."""
    table = f"document.querySelectorAll('figure')[{chart}].querySelector('table')"
    return tab.ask(f"[...{table}.tBodies[0].rows[{row}].cells].map((cell) => cell.textContent)")


def rows_in(tab: Tab, chart: int) -> int:
    return tab.ask(f"document.querySelectorAll('figure')[{chart}].querySelector('table').tBodies[0].rows.length")


def tip_of(tab: Tab, chart: int) -> str:
    tip = f"{CHART.format(chart)}.querySelector('.tip')"
    return tab.ask(f"{tip}.hidden ? '' : {tip}.innerText")


def charts_in(tab: Tab) -> int:
    return tab.ask("document.querySelectorAll('.plot').length")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", ["plan", "sweep"])
def test_arrow_keys_tell_every_row_of_the_table(opened, name: str, width: int):
    tab = opened(name, width)
    for chart in range(charts_in(tab)):
        tab.ask(f"{CHART.format(chart)}.focus()")
        for row in range(rows_in(tab, chart)):
            tab.press("ArrowRight")
            cells = [cell for cell in row_of(tab, chart, row) if cell != "–"]
            told = re.sub(r"\s+", " ", tip_of(tab, chart))
            assert all(re.sub(r"\s+", " ", cell) in told for cell in cells), (chart, row, told)
            spoken = tab.ask(f"{CHART.format(chart)}.getAttribute('aria-valuetext')")
            assert all(cell in spoken for cell in cells)
            assert tab.ask(f"{CHART.format(chart)}.querySelectorAll('svg:not([style]) .on').length") == 1
        assert wrong(tab, "overflow") == {}
        last = tip_of(tab, chart)
        tab.press("Home")
        assert tip_of(tab, chart) != last
        tab.press("End")
        assert tip_of(tab, chart) == last
        tab.press("Escape")
        assert tip_of(tab, chart) == ""


def test_what_the_pointer_is_on_is_told(opened):
    tab = opened("plan")
    for chart in range(charts_in(tab)):
        middle = tab.ask(
            f"(() => {{ const plot = {CHART.format(chart)}; plot.scrollIntoView({{ block: 'center' }});"
            " const hits = [...plot.querySelectorAll('[data-row]')].filter((hit) => hit.getClientRects().length);"
            " const hit = hits[hits.length >> 1], box = hit.getBoundingClientRect();"
            " return [hit.dataset.row, (box.left + box.right) / 2, (box.top + box.bottom) / 2]; })()"
        )
        before = tab.picture()
        tab.point(*middle[1:])
        assert tip_of(tab, chart) != ""
        tab.ask(f"{CHART.format(chart)}.querySelector('.tip').style.visibility = 'hidden'")
        assert tab.picture() != before, "what is told is marked"
        tab.point(2, 2)
        assert tip_of(tab, chart) == ""


def test_an_entry_of_the_legend_brings_its_line_to_the_fore(opened):
    tab = opened("plan")
    opacity = f"[...{CHART.format(0)}.querySelectorAll('.wide .s')].map((s) => getComputedStyle(s).opacity)"
    assert set(tab.ask(opacity)) == {"1"}
    tab.ask("document.querySelectorAll('.legend button')[1].focus()")
    tab.press(" ")
    assert tab.ask("document.activeElement.ariaPressed") == "true"
    assert sorted(tab.ask(opacity))[-2:] == ["0.12", "1"]
    tab.press("Enter")
    assert set(tab.ask(opacity)) == {"1"}


def test_without_scripts_no_figure_is_missing(opened, tab: Tab):
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened("sweep", PHONE)
        assert tab.ask("document.querySelector('.tip')") is None
        assert wrong(tab, "overflow", "pictures", "cut", "faint") == {}
        tab.ask("document.querySelector('summary').focus()")
        tab.press("Enter")
        assert tab.ask("document.querySelector('details').open")
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


# ---- paper -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_on_paper_everything_is_open_and_nothing_is_cut(opened, name: str, theme: str):
    tab = opened(name, PAPER, theme, "print")
    assert wrong(tab, "overflow", "pictures", "cut", "covered", "faint", "hidden") == {}
    assert tab.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.ask("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_a_page_prints(opened):
    tab = opened("plan", theme="dark")
    printed = tab.paper()
    assert 4 <= pages_of(printed) <= 20
    assert tab.ask("document.querySelectorAll('details[open]').length") == 0, "as it was before"
    assert tab.console == []
