"""The tables of docs/quantised-sums.md are what the records say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.wire_formats import WIRES

PAGE = (Path(__file__).parents[1] / "docs/quantised-sums.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
KIND = KINDS["quantized_all_reduce"]


def test_errors_and_slopes_are_those_of_the_records():
    rows = [row for row in ROWS if len(row) == 6]
    assert len(rows) >= 8
    for name, normal, slope, *at in rows:
        wire, group = re.findall(r"`(\w+)`, (\w+)", name)[0]
        error = KIND.errors[wire, group, "two_shot"]
        assert (float(normal), float(slope)) == (error.at(2), error.slope), name
        for largest, told in zip((10.0, 100.0, 300.0), at, strict=True):
            assert error.at(2, largest) == pytest.approx(float(told), abs=6e-4), name


def test_bytes_are_those_of_a_row_on_its_way():
    pytest.importorskip("torch")
    from commplan.runtime.kernels.room import layout_of, row_bytes

    rows = [row for row in ROWS if len(row) == 3]
    assert {re.findall(r"`(\w+)`", row[0])[0] for row in rows} == set(WIRES)
    for name, told, _ in rows:
        wire, group = re.findall(r"`(\w+)`, (\w+)", name)[0]
        assert row_bytes(5120, layout_of(5120, wire, group)) == int(told), name
