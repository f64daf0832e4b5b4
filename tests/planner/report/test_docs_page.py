"""docs/reports.md shows what `commplan report` really prints, and the parts that pages really have."""

from __future__ import annotations

import re
from pathlib import Path

from ..cli.commandline import run

PAGE = (Path(__file__).parents[3] / "docs" / "reports.md").read_text(encoding="utf-8")


def test_the_session_is_real(sharded: Path, monkeypatch):
    monkeypatch.chdir(sharded.parent)
    Path("strategy.yaml").write_text(sharded.with_suffix(".yaml").read_text())
    (shown,) = re.findall(r"```console\n\$ commplan report strategy.yaml\n(.*?)```", PAGE, re.DOTALL)
    assert shown == run("report", "strategy.yaml").out, "copy what it prints into docs/reports.md"


def test_the_parts_are_those_of_a_page(swept: Path):
    parts = re.findall(r"<h2[^>]*>(.*?)</h2>", swept.read_text())
    assert re.findall(r"^\| (\w.*?) \|", PAGE, re.MULTILINE)[1:] == parts[:-1]
    assert parts[-1] == "All points"
