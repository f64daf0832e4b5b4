"""docs/what-if.md shows what its commands really print. `python -m tests.test_what_if_page` fills it anew."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import pytest

from .test_readme import fill_readme

PAGE = Path(__file__).parent.parent / "docs" / "what-if.md"


def filled(text: str) -> str:
    """The page with every console block filled, in a folder with the files that its shell blocks make before."""
    fill = fill_readme()
    with tempfile.TemporaryDirectory() as folder:
        for line in text.splitlines():
            if line.startswith("commplan plan "):
                fill.printed(shlex.split(line)[1:], folder)
        return fill.BLOCK.sub(lambda match: f"```console\n{fill.filled(match[1], folder)}```", text)


@pytest.mark.slow
def test_every_session_of_the_page_is_real() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m tests.test_what_if_page"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
