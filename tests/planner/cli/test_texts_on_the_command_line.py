"""Names and paths on the command line: an empty one, half a character, a target that cannot be written."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from commplan.planner.strategy.command_line.option_types import FilledText

from .commandline import refused
from .test_numeric_options import parameters

SMALL = "qwen3-0.6b-cpu-tp2"
FILLED = [
    pytest.param(name, command, p, id=f"{name} {p.opts[-1]}")
    for name, command, p in parameters()
    if isinstance(p.type, FilledText)
]


def test_nearly_every_text_of_a_command_is_held_to_be_one() -> None:
    """Those that are not are words of their own, which their commands look up, or may be empty."""
    loose = {
        f"{name} {p.opts[-1]}"
        for name, _, p in parameters()
        if isinstance(p.type, click.types.StringParamType | click.Path | click.types.UnprocessedParamType)
    }
    assert loose <= {
        "calibrate --import",
        "explain --boundary",
        "explain --op",
        "launch arguments",
        "run --prompt",
        "run --tokens",
        "verify --tokens",
    }


@pytest.mark.parametrize("text", ["", "  ", "a\0b"])
@pytest.mark.parametrize(("name", "command", "parameter"), FILLED)
def test_a_name_that_is_none_is_refused(
    name: str, command: click.Command, parameter: click.Parameter, text: str
) -> None:
    words = []
    for p in command.params:
        if isinstance(p, click.Argument):
            words.append(text if p is parameter else p.type.choices[0] if isinstance(p.type, click.Choice) else "x")
        elif p is parameter:
            words.append(f"{p.opts[-1]}={text}")
        elif p.required:
            words.append(f"{p.opts[-1]}=http://127.0.0.1:1")
    error = refused(*name.split(), *words)
    wanted = parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.human_readable_name
    assert (error["field"], error["value"], error["kind"]) == (wanted, text, "usage")


@pytest.mark.parametrize("option", ["--set", "--vary"])
def test_half_a_character_is_no_value(option: str) -> None:
    error = refused("what-if", SMALL, option, "name=\udcff")
    assert (error["field"], error["kind"]) == (option, "usage")


@pytest.mark.parametrize("name", ["two\nlines", "\udcff", "\x1b[31m"])
def test_a_name_that_no_file_should_hold_is_refused_before_anything_is_measured(name: str, tmp_path: Path) -> None:
    assert refused("calibrate", SMALL, "-o", tmp_path / "x.yaml", "--name", name)["field"] == "--name"


def test_where_a_calibration_goes_is_looked_at_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("ranks were started")

    monkeypatch.setattr("commplan.runtime.ranks.spawning.run_ranks", started)
    (tmp_path / "file").write_text("")
    for path, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "x.yaml", "No such file or directory"),
        (tmp_path / "file" / "x.yaml", "Not a directory"),
        (Path("/dev/null"), "is not a regular file"),
        (tmp_path / ("x" * 250), "longer than 240 bytes"),
    ):
        error = refused("calibrate", SMALL, "-o", path)
        assert (error["kind"], error["field"], error["file"]) == ("unwritable", "--output", str(path))
        assert words in error["message"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_case_with_a_name_too_long_for_any_file_is_refused() -> None:
    assert "neither a file nor a case" in refused("backtest", "x" * 5000)["message"]
