"""Fills docs/library.md with what its scripts really print: each `python` block is run, its `text` block is filled.

The blocks are one program, run in order in an empty folder.

python docs/fill_library.py            # rewrites the outputs
python docs/fill_library.py --check    # exits 1 if one differs
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent / "library.md"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)


def filled_library(text: str) -> str:
    """The page with what each block prints; a block that prints nothing has no text behind it."""
    names: dict[str, object] = {}

    def filled(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match[1], str(PAGE), "exec"), names)
        shown = printed.getvalue()
        return f"```python\n{match[1]}```\n" + (f"\n```text\n{shown}```\n" if shown else "")

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return BLOCK.sub(filled, text)
        finally:
            os.chdir(here)


def main() -> None:
    """Fill or check the page beside this script."""
    text = PAGE.read_text(encoding="utf-8")
    new = filled_library(text)
    if "--check" not in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
    sys.exit("--check" in sys.argv and new != text)


if __name__ == "__main__":
    main()
