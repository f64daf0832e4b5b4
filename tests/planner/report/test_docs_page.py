"""docs/reports.md names the parts that pages really have."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[3] / "docs" / "reports.md").read_text(encoding="utf-8")


def test_the_parts_are_those_of_a_page(swept: Path):
    parts = re.findall(r"<h2[^>]*>(.*?)</h2>", swept.read_text())
    assert re.findall(r"^\| (\w.*?) \|", PAGE, re.MULTILINE)[1:] == parts[:-1]
    assert parts[-1] == "All points"
