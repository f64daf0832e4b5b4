"""Draws docs/report.png: the first chart of a report, as a browser shows it.

python -m tests.planner.report.picture
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from commplan.planner.report.strategy_report import report_strategy
from tests.planner.cli.commandline import run

from .browser import Tab, chromium

DEPLOYMENT = "deepseek-r1-h20-tp8"
PICTURE = Path(__file__).parents[3] / "docs" / "report.png"
CARD = """(() => {
  const box = document.querySelector("figure").getBoundingClientRect();
  return { x: box.x - 12, y: box.y + scrollY - 12, width: box.width + 24, height: box.height + 24 };
})()"""


def main() -> None:
    """Plan, report, open, take the picture."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        file, page = Path(folder) / "strategy.yaml", Path(folder) / "strategy.html"
        assert run("plan", DEPLOYMENT, "-o", file).code == 0
        report_strategy(str(file), None, (), page)
        tab = Tab(browser)
        tab.open(page, 1064)
        PICTURE.write_bytes(tab.picture(tab.ask(CARD), scale=2))
    print(PICTURE, file=sys.stderr)


if __name__ == "__main__":
    main()
