"""Pictures: ticks, labels and colours, whatever is drawn."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from math import dist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.report.axis import linear, of_tokens, of_values, placed
from commplan.planner.report.chart import WIDTHS, Key
from commplan.planner.report.palette import (
    AREA,
    CARDS,
    LINE,
    LINES,
    PART_COLOURS,
    STOCK_COLOUR,
    TEXT,
    contrast,
    on_card,
)
from commplan.planner.report.svg import number, width_of
from commplan.planner.report.xy_plot import Mark, Series, XYPlot, times
from commplan.planner.strategies import strategies
from commplan.planner.strategy.op_kinds import KINDS

# Full dichromacy in linear light, after Machado, Oliveira and Fernandes (2009).
EYES = {
    "all three cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
COLOURS = [*PART_COLOURS.values(), STOCK_COLOUR, *(s.colour for s in strategies().values())]
COLOURS += [kind.colour for kind in KINDS.values()]


@pytest.mark.parametrize("least", [LINE, AREA, TEXT])
@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_stands_out_on_the_light_page_and_on_the_dark_one(colour: str, least: tuple[float, float]):
    shown = re.findall(r"#[0-9a-f]{6}", on_card(colour, least))
    for one, card, ratio in zip(shown, CARDS, least, strict=True):
        assert contrast(one, card) >= ratio
    assert re.fullmatch(r"light-dark\(#\w+,#\w+\)", on_card(colour, least))


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize(("colours", "least", "apart"), [
    (PART_COLOURS.values(), AREA, 15),
    (LINES, LINE, 10),
    ([STOCK_COLOUR, *(strategy.colour for strategy in strategies().values())], LINE, 10),
], ids=["parts", "lines", "strategies"])  # fmt: skip
def test_colours_of_a_chart_are_told_apart_by_colour_blind_eyes_in_either_theme(colours, least, apart, theme, eyes):
    shown = [re.findall(r"#[0-9a-f]{6}", on_card(colour, least))[theme] for colour in colours]
    for one, other in combinations(shown, 2):
        assert dist(lab(one, EYES[eyes]), lab(other, EYES[eyes])) >= apart, (one, other)


def lab(colour: str, eyes: list[list[float]]) -> tuple[float, float, float]:
    """CIE Lab of a colour as these eyes see it."""
    shares = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear_light = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    seen = [min(1, max(0, sum(a * b for a, b in zip(row, linear_light, strict=True)))) for row in eyes]
    to_xyz = ([0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729])  # over the white point
    x, y, z = (sum(a * b for a, b in zip(row, seen, strict=True)) for row in to_xyz)
    f, g, h = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return 116 * g - 16, 500 * (f - g), 200 * (g - h)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_ticks_of_token_counts_lie_on_the_axis_and_name_its_ends(one: int, other: int):
    axis = of_tokens(sorted((one, other)))
    values = [value for value, _ in axis.ticks]
    assert values == sorted(values)
    assert all(0 <= axis.share(value) <= 1 for value in values)
    assert values[0] < 4 * axis.low
    assert values[-1] * 4 > axis.high


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e6))
def test_ticks_of_a_linear_axis_are_few_on_it_and_told_apart(low: float, length: float):
    axis = linear("", low, low + length, lambda value, decimals: f"{value:,.{decimals}f}")
    assert len(axis.ticks) <= 7
    assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value, _ in axis.ticks)
    labels = [label for _, label in axis.ticks]
    assert len(labels) == len(set(labels))


@given(st.lists(st.integers(1, 1 << 22), min_size=1, max_size=30, unique=True), st.sampled_from(list(WIDTHS.values())))
def test_labels_of_ticks_are_inside_the_picture_and_never_touch(values: list[int], width: int):
    axis = of_values("", values, is_log=max(values) > 20 * min(values))
    found = placed(axis, 60, width - 68, width)
    spans = [(middle - width_of(label) / 2, middle + width_of(label) / 2) for _, middle, label in found]
    assert all(low >= 0 and high <= width for low, high in spans)
    assert all(before[1] < after[0] for before, after in pairwise(spans))


@given(st.lists(st.integers(1, 16384), min_size=1, max_size=9), st.sampled_from(list(WIDTHS.values())))
def test_notes_above_the_lines_never_cover_each_other(counts: list[int], width: int):
    key = Key("plan", "red", 2)
    marks = [Mark(count, f"reduce_scatter from {count:,}", "red") for count in sorted(counts)]
    plot = XYPlot(
        [Series(key, [(1, 1.0), (16384, 1.2)])], of_tokens([1, 16384]), linear("y", 0.9, 1.3, times), [key], marks
    )
    notes = re.findall(
        r'<text x="([\d.-]+)" y="([\d.]+)" text-anchor="(\w+)" class="note"[^>]*>(.*?)</text>', plot.drawn(width)
    )
    assert len(notes) == len(marks)
    places = []
    for x, y, anchor, words in notes:
        start = float(x) - (width_of(words) if anchor == "end" else 0)
        places.append((float(y), start, start + width_of(words)))
        assert start >= -0.1 and places[-1][2] <= width + 0.1
    places.sort()
    assert all(a[0] < b[0] or a[2] <= b[1] + 0.1 for a, b in pairwise(places))


def test_a_line_is_broken_where_it_has_no_value():
    key = Key("plan", "red", 2)
    points = [(1, 1.0), (2, None), (4, 1.1), (8, 1.2)]
    drawn = XYPlot([Series(key, points)], of_tokens([1, 8]), linear("y", 0.9, 1.3, times), [key]).drawn(960)
    (path,) = re.findall(r'd="([^"]*)" class="line"', drawn)
    assert re.sub(r"[\d.,]", "", path) == "MML"


def test_a_coordinate_is_short():
    assert [number(value) for value in (1.0, 2.25, -0.01, 1234.56)] == ["1", "2.2", "0", "1234.6"]
