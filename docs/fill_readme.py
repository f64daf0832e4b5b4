"""Fills README.md and the pages of docs/ with what their commands really print: blocks that start with `$ commplan`.

In docs/accuracy.md it fills what stands between `<!-- commplan ... -->` and `<!-- end -->`. It first writes
configs/accuracy/summary.yaml, which plans read.

python docs/fill_readme.py            # rewrites the outputs
python docs/fill_readme.py --check    # exits 1 if one differs
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
ACCURACY = DOCS / "accuracy.md"
PAGES = [README, *sorted(page for page in DOCS.glob("*.md") if page != ACCURACY)]
BLOCK = re.compile(r"```console\n(\$ commplan .*?)```", re.DOTALL)
SUMMARY = DOCS.parent / "configs" / "accuracy" / "summary.yaml"
TABLE = re.compile(r"<!-- commplan (.*?) -->\n.*?<!-- end -->", re.DOTALL)
# Blocks that need what a planner alone has not: they are filled in by hand, from a real run.
BY_HAND = ("commplan check", "commplan run", "commplan launch")


def filled(block: str, folder: str) -> str:
    """The block with the output of each of its commands."""
    lines = []
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        lines += [line, *printed(line.split()[2:], folder).splitlines()]
    return "\n".join(lines) + "\n"


def printed(arguments: list[str], folder: str) -> str:
    """What `commplan ARGUMENTS` prints in a folder, without the last line break."""
    command = [sys.executable, "-m", "commplan.planner.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return (done.stdout or done.stderr).rstrip("\n")


def filled_page(text: str) -> str:
    """A page with every block filled. The blocks of a page run in one folder, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        return BLOCK.sub(
            lambda match: (
                match[0]
                if any(command in match[1] for command in BY_HAND)
                else f"```console\n{filled(match[1], folder)}```"
            ),
            text,
        )


def filled_accuracy(text: str) -> str:
    """docs/accuracy.md with every table filled."""
    with tempfile.TemporaryDirectory() as folder:
        return TABLE.sub(
            lambda match: f"<!-- commplan {match[1]} -->\n{printed(match[1].split(), folder)}\n<!-- end -->", text
        )


def filled_summary(_: str) -> str:
    """configs/accuracy/summary.yaml anew."""
    return printed(["backtest", "--summary"], str(SUMMARY.parent)) + "\n"


def main() -> None:
    """Fill or check the README beside this folder, the pages here, and the summary that plans read."""
    wrong = False
    pages = [(page, filled_page) for page in PAGES]
    for path, fill in ((SUMMARY, filled_summary), *pages, (ACCURACY, filled_accuracy)):
        text = path.read_text(encoding="utf-8")
        new = fill(text)
        wrong |= new != text
        if "--check" not in sys.argv:
            path.write_text(new, encoding="utf-8")
    sys.exit("--check" in sys.argv and wrong)


if __name__ == "__main__":
    main()
