"""A file cut off anywhere is refused: `end: true` with its line end is the last thing in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.answers.validation import validate
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import load, parse

from ...cli.commandline import refused, run


@pytest.mark.parametrize("deployment", ["deepseek-r1-h20-tp8", "qwen3-235b-h200-dp4"])
def test_a_plan_cut_at_any_byte_is_refused(deployment: str, planned: Callable[[str], str]) -> None:
    text = planned(deployment)
    parse(text)
    for length in range(len(text)):
        with pytest.raises(InputError):
            parse(text[:length])


@pytest.mark.slow
def test_load_and_validate_refuse_a_file_cut_at_any_byte(planned: Callable[[str], str], tmp_path: Path) -> None:
    content = planned("qwen3-0.6b-cpu-tp2").encode()
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    assert validate(path) == []
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert validate(path)
        with pytest.raises(InputError, match=r"plan\.yaml"):
            load(path)


def test_the_command_exits_with_2_wherever_lines_are_cut(planned: Callable[[str], str], tmp_path: Path) -> None:
    text = planned("qwen3-0.6b-cpu-tp2")
    path = tmp_path / "plan.yaml"
    lines = text.splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_text("".join(lines[:kept]))
        assert run("validate", path).code == 2
        assert refused("explain", "qwen3-0.6b-cpu-tp2", "--strategy", path)["file"] == str(path)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.999])
def test_the_error_says_truncated_or_where_the_text_breaks_off(kept: float, r1: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(r1[: int(len(r1) * kept)])
    assert caught.value.kind in ("truncated", "syntax")


def test_a_file_cut_between_two_ranges_says_truncated(r1: str) -> None:
    with pytest.raises(InputError, match="truncated"):
        parse(r1[: r1.index("  decode:")])


def test_an_end_that_is_not_the_last_key_is_no_end(r1: str) -> None:
    for spoiled in (
        r1.replace("end: true\n", ""),
        "end: true\n" + r1.replace("end: true\n", ""),
        r1.replace("end: true\n", "end: false\n"),
        r1.replace("end: true\n", 'end: "true"\n'),
        r1.replace("end: true\n", "end: true"),
    ):
        with pytest.raises(InputError, match="truncated"):
            parse(spoiled)
