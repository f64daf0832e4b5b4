"""On a terminal lines fit its width, and colours can be done without; what reads a pipe gets whole lines."""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from commplan.planner.cli import main
from commplan.planner.cli.output import table
from commplan.planner.strategy.command_line.terminal import echo, styled, wrapped

from .commandline import run

R1, SMALL = "deepseek-r1-h20-tp8", "qwen3-0.6b-cpu-tp2"
ROOT = Path(__file__).parents[3]
COLOUR = "\x1b["


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(*arguments: object, columns: int = 80, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What a command prints on a terminal of so many columns, on standard output and standard error."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out, err = Terminal(), Terminal()
    argv = ["commplan", *map(str, arguments)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err), suppress(SystemExit):
        main()
    return out.getvalue(), err.getvalue()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


COMMANDS = [
    ("plan", R1),
    ("explain", R1, "--op", "int8_all_reduce"),
    ("explain", "qwen3-235b-h200-dp4", "--mode", "decode", "--boundary", "mlp_in"),
    ("what-if", SMALL, "--vary", "tokens=1,64", "--vary", "tp=1,2,3"),
    ("diff", ROOT / "tests/golden" / f"{R1}.yaml", ROOT / "tests/golden" / "deepseek-r1-h200-tp2.yaml"),
    ("presets",),
    ("backtest", "sglang-10568-communication", "sglang-10568-norm"),
    ("explain", R1, "--set", "numerics.loosest=quantised"),
    ("no-such-command",),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: f"{words[0]}-{len(words)}")
def test_every_line_fits_a_terminal_of_80_columns(
    arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = on_terminal(*arguments, monkeypatch=monkeypatch)
    lines = plain(out + err).splitlines()
    assert lines
    too_long = [line for line in lines if len(line) > 80 and " " in line.strip()]
    assert too_long == []


@pytest.mark.parametrize("arguments", [("plan", R1), ("explain", R1, "--op", "all_reduce"), ("presets",)])
def test_a_narrow_terminal_loses_no_word(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, _ = on_terminal(*arguments, monkeypatch=monkeypatch)
    kept = plain(narrow).split()
    lost = set(run(*arguments).out.split()) - set(kept)
    assert lost <= {"op"}  # the name of a first column, where a table is too wide to have columns


def test_what_no_terminal_reads_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("explain", R1).out
    monkeypatch.setenv("COLUMNS", "40")
    assert run("explain", R1).out == whole


def test_data_is_not_broken_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ROOT / "tests/planner/descriptions/hf_configs/deepseek-v3.json"
    out, _ = on_terminal("import-model", config, columns=40, monkeypatch=monkeypatch)
    assert plain(out) == run("import-model", config).out


def test_a_broken_text_keeps_its_colours_and_escapes() -> None:
    first, second = wrapped(("red: ", styled("one two\n", "red")), 8, 8)
    assert first == ("red: ", styled("one", "red"))
    assert second == (styled(r"two\n", "red"),)


def test_a_word_that_is_too_long_stands_alone() -> None:
    assert wrapped("a " + "x" * 30 + " b", 10, 10) == [("a",), ("x" * 30,), ("b",)]


@pytest.mark.parametrize("right", ["", "lr"])
def test_a_table_that_is_too_wide_names_the_column_of_every_cell(right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    with redirect_stdout(out):
        table(["op", "impl", "us"], [["all_reduce", "a_kernel_of_our_own", "12345678901234567890"]], right)
    assert plain(out.getvalue()) == "  all_reduce  impl a_kernel_of_our_own\n    us 12345678901234567890\n"


# ---- colours ---------------------------------------------------------------------------------------------------------


def test_a_terminal_has_colours_unless_somebody_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for command in (("plan", SMALL), ("plan", "no-such")):
        assert COLOUR in "".join(on_terminal(*command, monkeypatch=monkeypatch))
        assert COLOUR not in "".join(on_terminal(*command, "--no-color", monkeypatch=monkeypatch))
        assert COLOUR not in "".join(on_terminal("--no-color", *command, monkeypatch=monkeypatch))
    monkeypatch.setenv("NO_COLOR", "")
    assert COLOUR in on_terminal("plan", SMALL, monkeypatch=monkeypatch)[0]
    monkeypatch.setenv("NO_COLOR", "1")
    for command in (("plan", SMALL), ("plan", "no-such")):
        assert COLOUR not in "".join(on_terminal(*command, monkeypatch=monkeypatch))


def test_one_command_without_colours_takes_none_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal("presets", "--no-color", monkeypatch=monkeypatch)
    assert COLOUR in on_terminal("plan", "no-such", monkeypatch=monkeypatch)[1]


def test_standard_error_is_broken_to_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out, err = io.StringIO(), Terminal()
    with redirect_stdout(out), redirect_stderr(err):
        echo("word " * 20)
        echo("word " * 20, err=True)
    assert len(out.getvalue().splitlines()) == 1
    assert all(len(line) <= 40 for line in err.getvalue().splitlines())
