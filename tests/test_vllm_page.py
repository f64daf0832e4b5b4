"""The page about exports shows what the commands really print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from .planner.cli.commandline import run

PAGE = Path(__file__).parent.parent / "docs" / "vllm.md"
BLOCK = re.compile(r"```console\n\$ commplan (.*?)\n(.*?)```", re.DOTALL)


def filled(text: str) -> str:
    """The page with the output of every command."""
    return BLOCK.sub(lambda match: f"```console\n$ commplan {match[1]}\n{printed(match[1])}```", text)


def printed(command: str) -> str:
    result = run(*shlex.split(command))
    assert result.code == 0, result
    return result.out


def test_every_session_in_the_page_is_real() -> None:
    """Written anew by `python -m tests.test_vllm_page`."""
    text = PAGE.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == 5
    assert filled(text) == text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
