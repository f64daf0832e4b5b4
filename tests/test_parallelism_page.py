"""The page about parallelism shows what the commands really print, and names the executors that it should."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from commplan.planner.descriptions.deployment import ParallelismSpec
from commplan.planner.strategy.executor_file import capabilities, executor_names

from .planner.cli.commandline import run

PAGE = Path(__file__).parent.parent / "docs" / "parallelism.md"
BLOCK = re.compile(r"```console\n\$ commplan (.*?)\n(.*?)```", re.DOTALL)


def filled(text: str) -> str:
    """The page with the output of every command, or its error."""
    return BLOCK.sub(lambda match: f"```console\n$ commplan {match[1]}\n{printed(match[1])}```", text)


def printed(command: str) -> str:
    """What a command prints, through `| head -N` or `| grep -A N ^WORD`."""
    command, _, through = command.partition(" | ")
    result = run(*shlex.split(command))
    assert result.code in (0, 2), result
    lines = (result.out or result.err).splitlines(keepends=True)
    if through:
        tool, *arguments = through.split()
        start = 0 if tool == "head" else next(i for i, x in enumerate(lines) if x.startswith(arguments[-1][1:]))
        lines = lines[start:][: -int(arguments[0]) if tool == "head" else 1 + int(arguments[1])]
    return "".join(lines)


def test_every_session_in_the_page_is_real() -> None:
    """Written anew by `python -m tests.test_parallelism_page`."""
    text = PAGE.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == 5
    assert filled(text) == text


def test_the_page_names_every_key_and_who_plans_what() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for key in ParallelismSpec.model_fields:
        assert f"| `{key}` |" in text
    known = {name: capabilities(name) for name in executor_names()}
    assert [name for name, each in known.items() if each.pipeline] == ["plan_only"]
    assert {name for name, each in known.items() if each.hybrid_experts} == {"sglang", "plan_only"}


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
