"""No text from a file or a command line reaches a terminal raw: files with control characters are refused, and what
is printed is escaped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.command_line.terminal import echo, echo_lines, rendered, styled, width
from commplan.planner.strategy.file import InputError, parse

from .commandline import Result, answer, refused, run

CONFIGS = Path(__file__).parents[3] / "configs"
HF_CONFIG = Path(__file__).parents[1] / "descriptions" / "hf_configs" / "qwen3-0.6b.json"
SMALL = "qwen3-0.6b-cpu-tp2"
HOSTILE = "x\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202eabc\u2066"
QUOTED = json.dumps(HOSTILE)
ONE_OF_EACH = ["\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u202e", "\u2069", "\ud800"]


def is_plain(result: Result) -> bool:
    return all(c == "\n" or c.isprintable() for c in result.out + result.err)


def hostile_files(folder: Path) -> dict[str, Path]:
    """Every kind of file, each with the hostile text as a name or another text that its command prints."""
    texts = {
        "deployment": (CONFIGS / "deployments" / f"{SMALL}.yaml").read_text(),
        "model": (CONFIGS / "models" / "qwen3-0.6b.yaml").read_text(),
        "hardware": (CONFIGS / "hardware" / "cpu-gloo.yaml").read_text(),
        "calibration": (CONFIGS / "calibrations" / "cpu-gloo.yaml").read_text(),
        "case": (CONFIGS / "backtests" / "sglang-10568-communication.yaml").read_text(),
    }
    answer("plan", SMALL, "-o", folder / "healthy-plan.yaml")
    found = {}
    for kind, text in texts.items():
        key = "id: " if kind == "case" else "name: "
        lines = [f"{key}{QUOTED}" if line.startswith(key) else line for line in text.splitlines()]
        found[kind] = folder / f"{kind}.yaml"
        found[kind].write_text("\n".join([*lines, ""]))
        assert QUOTED in found[kind].read_text()
    plan = (folder / "healthy-plan.yaml").read_text()
    found["plan"] = folder / "plan.yaml"
    found["plan"].write_text(plan.replace("name: Qwen3-0.6B", f"name: {QUOTED}"))
    assert QUOTED in found["plan"].read_text()
    found["config"] = folder / "config.json"
    found["config"].write_text(json.dumps(json.loads(HF_CONFIG.read_text()) | {"architectures": [HOSTILE]}))
    found["sensitivity"] = folder / "sensitivity.yaml"
    found["sensitivity"].write_text(f"schema: {QUOTED}\nattn_out: [1.0]\nmlp_out: [1.0]\n")
    return found


READERS = {
    "deployment": [
        ["plan", "{}"],
        ["explain", "{}"],
        ["what-if", "{}"],
        ["calibrate", "{}", "-o", "out"],
        ["report", "healthy-plan.yaml", "--deployment", "{}", "-o", "out"],
        ["verify", "healthy-plan.yaml", "--deployment", "{}"],
    ],
    "model": [["plan", SMALL, "--set", "model={}"], ["import-model", "{}"], ["what-if", SMALL, "--vary", "model={}"]],
    "hardware": [["plan", SMALL, "--set", "hardware={}"], ["explain", SMALL, "--set", "hardware={}"]],
    "calibration": [
        ["plan", SMALL, "--set", "hardware.calibrations=[{{file: {}}}]"],
        ["backtest", "--tables", "{}"],
        ["backtest", "--tables", "--markdown", "{}"],
    ],
    "case": [["backtest", "{}"], ["backtest", "--markdown", "{}"]],
    "plan": [
        ["validate", "{}"],
        ["diff", "{}", "healthy-plan.yaml"],
        ["diff", "healthy-plan.yaml", "{}"],
        ["report", "{}", "--deployment", SMALL, "-o", "out"],
        ["explain", SMALL, "--strategy", "{}"],
        ["verify", "{}", "--deployment", SMALL],
        ["export", "sglang", "{}"],
        ["launch", "sglang", "{}", "--model-path", "nowhere", "--dry-run"],
        ["check", "{}", "--model", "nowhere"],
        ["run", "{}", "--model", "nowhere", "--tokens", "1"],
    ],
    "config": [["import-model", "{}"], ["plan", SMALL, "--set", "model={}"]],
    "sensitivity": [["plan", SMALL, "--set", "numerics.sensitivity={}"]],
}


@pytest.mark.parametrize(("kind", "arguments"), [(kind, a) for kind, of_kind in READERS.items() for a in of_kind])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "json"])
def test_a_hostile_file_prints_nothing_raw(
    kind: str, arguments: list[str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = hostile_files(tmp_path)[kind]
    json_too = arguments[0] not in ("launch",)
    result = run(*(a.format(path) for a in arguments), *(options if json_too else []))
    assert is_plain(result), result
    told = result.out + result.err
    if arguments[0] == "what-if" and kind == "model":  # a point that cannot be is shown with its reason
        assert (result.code, "control character" in told) == (0, True)
    else:
        assert result.code == 2, result
        assert "control character U+001B" in told or arguments[0] == "explain", result
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("character", ONE_OF_EACH, ids=ascii)
@pytest.mark.parametrize("place", ["a value", "a key", "in a list"])
def test_every_control_character_is_refused_wherever_it_stands(character: str, place: str, tmp_path: Path) -> None:
    text = f"a{character}b"
    written: dict[str, object] = {"a value": {"schema": text}, "a key": {text: 1}, "in a list": {"a": [1, text]}}
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps(written[place]))
    error = refused("plan", path)
    assert (error["kind"], error["file"]) == ("control_character", str(path))
    assert f"U+{ord(character):04X}" in error["message"]


@pytest.mark.parametrize("character", ["\n", "\t"])
def test_descriptions_may_have_lines_and_tabs_and_names_of_fields_may_not(character: str, tmp_path: Path) -> None:
    text = json.dumps(f"a{character}b")
    deployment = (CONFIGS / "deployments" / f"{SMALL}.yaml").read_text()
    lines = [f"description: {text}" if line.startswith("description") else line for line in deployment.splitlines()]
    (tmp_path / "d.yaml").write_text("\n".join([*lines, ""]))
    assert answer("plan", tmp_path / "d.yaml")["hash"]
    (tmp_path / "d.yaml").write_text("\n".join([*lines, f"{text}: 1", ""]))
    assert refused("plan", tmp_path / "d.yaml")["kind"] == "control_character"


def test_the_reader_of_strategy_files_refuses_them_without_a_file(tmp_path: Path) -> None:
    answer("plan", SMALL, "-o", tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text().replace("name: Qwen3-0.6B", f"name: {QUOTED}")
    with pytest.raises(InputError, match="control character U\\+001B"):
        parse(text)


@pytest.mark.parametrize("option", ["--set", "--vary"])
def test_values_on_the_command_line_that_decode_to_control_characters_are_refused(option: str) -> None:
    error = refused("what-if", SMALL, option, r'name="a\x1b[2J"')
    assert "control character U+001B" in error["message"]


FROM_THE_COMMAND_LINE: list[list[Any]] = [
    ["plan", HOSTILE],
    ["plan", SMALL, f"--{HOSTILE}"],
    ["plan", SMALL, HOSTILE],
    ["plan", SMALL, "--set", f"{HOSTILE}=1"],
    ["plan", SMALL, "--set", f"name={HOSTILE}"],
    ["plan", SMALL, "-o", f"no/such/{HOSTILE}"],
    ["explain", SMALL, "--boundary", HOSTILE],
    ["explain", SMALL, "--mode", HOSTILE],
    ["explain", SMALL, "--layer", HOSTILE],
    ["what-if", SMALL, "--vary", f"{HOSTILE}=1,2"],
    ["what-if", SMALL, "--vary", f"model={HOSTILE}"],
    ["validate", HOSTILE],
    ["diff", HOSTILE, HOSTILE],
    ["presets", HOSTILE],
    ["backtest", HOSTILE],
    ["report", HOSTILE],
    ["import-model", HOSTILE],
    ["import-model", str(HF_CONFIG), "--name", HOSTILE],
    ["calibrate", HOSTILE, "-o", "out"],
    ["calibrate", SMALL, "-o", "out", "--name", HOSTILE],
    ["calibrate", "--import", HOSTILE],
    ["counters", "--server", HOSTILE],
    ["counters", "--server", f"http://{HOSTILE}"],
    [HOSTILE],
]


@pytest.mark.parametrize("arguments", FROM_THE_COMMAND_LINE, ids=lambda a: ascii(" ".join(a))[:60])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "json"])
def test_a_hostile_command_line_prints_nothing_raw(
    arguments: list[str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(a.replace("\x00", "") for a in arguments), *options)
    assert result.code in (0, 2)
    assert is_plain(result), result
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_a_hostile_name_is_read_and_its_name_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a\x1b[2J\nb\u202e.yaml"
    shutil.copy(CONFIGS / "deployments" / f"{SMALL}.yaml", name)
    answer("plan", name, "-o", "plan" + name)
    commands = [
        ["plan", name, "-o", "other" + name],
        ["what-if", name, "--vary", "model=qwen3-0.6b,qwen3-8b", "--csv", "csv" + name],
        ["explain", name],
        ["validate", "plan" + name],
        ["diff", "plan" + name, "other" + name],
        ["import-model", name],
    ]
    for arguments in commands:
        result = run(*arguments)
        assert is_plain(result), result
    assert all(c == "\n" or c.isprintable() for c in Path("csv" + name).read_text())


def test_what_import_model_makes_of_a_hostile_folder_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[2J\nb"
    folder.mkdir()
    shutil.copy(HF_CONFIG, folder / "config.json")
    answer("import-model", folder / "config.json", "-o", tmp_path / "model.yaml")
    assert answer("plan", SMALL, "--set", f"model={tmp_path / 'model.yaml'}")["hash"]


def test_a_line_is_one_line_and_its_width_is_what_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\nb", styled("\x1b[31mc", "red", bold=True))
    echo_lines("first\nsecond\x07\u202e")
    assert capsys.readouterr().out == "a\\nb\\x1b[31mc\nfirst\nsecond\\x07\\u202e\n"
    assert width(("é\n", styled("ab", "red"))) == 5
    assert rendered(styled("\x1b", "red")) == "\x1b[31m\\x1b\x1b[0m"
