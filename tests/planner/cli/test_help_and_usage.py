"""Help for every command; a command line that cannot be understood exits with 2, in JSON where JSON was asked for."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest

from commplan.planner.cli import main

from .commandline import ERROR_KEYS, run

COMMANDS = ["plan", "explain", "validate", "diff", "presets", "import-model"]
SMALL = "qwen3-0.6b-cpu-tp2"


def test_the_command_lists_its_subcommands() -> None:
    out = run("--help").out
    for command in COMMANDS:
        assert f"\n  {command}" in out


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_subcommand_explains_itself(command: str, option: str) -> None:
    result = run(command, option)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: commplan {command} ")
    assert "--json" in result.out


@pytest.mark.parametrize("arguments", [("--help",), ("plan", "--help"), ("--version",)])
def test_help_that_cannot_be_printed_is_one_line(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full, redirect_stdout(full), redirect_stderr(io.StringIO()) as said:
        with patch.object(sys, "argv", ["commplan", *arguments]), pytest.raises(SystemExit) as ended:
            main()
        full.close = lambda: None  # type: ignore[method-assign]
    assert (ended.value.code, said.getvalue()) == (
        2,
        "error: standard output: cannot be written: No space left on device\n",
    )


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("commplan") in run("--version").out


WRONG = [
    ("no-such-command",),
    ("plan",),
    ("plan", "a", "b"),
    ("plan", SMALL, "--outptu", "x"),
    ("plan", SMALL, "-o"),
    ("explain", SMALL, "--tokens", "many"),
    ("explain", SMALL, "--layer", "1.5"),
    ("presets", "gadgets"),
    ("validate",),
    ("diff", "one"),
    ("import-model",),
    ("schema",),
    ("schema", "gadgets"),
    ("init", "gadgets"),
    ("init", "deployment"),
    ("init", "hardware", "--link", "string"),
]


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [w for w in WRONG if w[-1] != "-o"])
def test_a_wrong_command_line_in_json(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--json")
    assert (result.code, result.err) == (2, "")
    assert set(result.json) == {"error"}
    error = result.json["error"]
    assert set(error) == ERROR_KEYS
    assert error["kind"] == "usage"
    assert error["message"]


@pytest.mark.parametrize(
    ("word", "hint"),
    [("plna", "did you mean 'plan'?"), ("whatif", "did you mean 'what-if'?"), ("gadgets", "accepted: backtest, ")],
)
def test_a_command_that_there_is_not_gets_a_suggestion(word: str, hint: str) -> None:
    error = run(word, "--json").json["error"]
    assert (error["kind"], error["value"]) == ("usage", word)
    assert error["message"].startswith(f"no such command; {hint}")
    assert run(word).err.startswith("error: no such command; ")


def test_a_misspelt_option_is_named() -> None:
    error = run("plan", SMALL, "--outpt", "x", "--json").json["error"]
    assert (error["field"], "--output" in error["message"]) == ("--outpt", True)


def test_output_for_people_has_no_colour_codes_when_it_is_no_terminal() -> None:
    for arguments in (("plan", SMALL), ("explain", SMALL), ("presets",), ("plan", "zzz"), ("validate", "zzz")):
        result = run(*arguments)
        assert "\x1b" not in result.out + result.err


def test_the_summary_of_a_plan_says_what_it_holds() -> None:
    out = run("plan", "deepseek-r1-h20-tp8").out
    for words in (
        "DeepSeek-R1 on h20-8, TP 8",
        "prefill",
        "decode",
        "vs stock",
        "wire times from",
        "No overlap",
    ):
        assert words in out
