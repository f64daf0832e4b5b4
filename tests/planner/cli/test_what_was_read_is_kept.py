"""No option writes onto a file that its command reads, whatever the file is called; no two write one file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from commplan.planner.cli import commplan
from commplan.planner.strategy.command_line.option_types import OutputFile, OutputFolder

from .commandline import answer, refused, run

CONFIGS = Path(__file__).parents[3] / "configs"
OUTPUT = Path(__file__).parents[1] / "calibration" / "outputs" / "hccl_8.txt"
HF_CONFIG = Path(__file__).parents[1] / "descriptions" / "hf_configs" / "qwen3-0.6b.json"
SMALL = "qwen3-0.6b-cpu-tp2"
OWN_FILES = ("deployment.yaml", "model.yaml", "hardware.yaml", "calibration.yaml", "sensitivity.yaml")

# Where an option's command reads each of these: what stands before and after the option with the file to write.
COMMANDS: dict[tuple[str, str], tuple[list[str], tuple[str, ...]]] = {
    ("plan", "--output"): (["plan", "deployment.yaml"], OWN_FILES),
    ("what-if", "--csv"): (["what-if", "deployment.yaml", "--vary", "tokens=1,2"], OWN_FILES),
    ("what-if", "--html"): (["what-if", "deployment.yaml", "--vary", "tokens=1,2"], OWN_FILES),
    ("calibrate", "--output"): (["calibrate", "deployment.yaml"], OWN_FILES),
    ("report", "--output"): (["report", "plan.yaml", "--deployment", "deployment.yaml"], ("plan.yaml", *OWN_FILES)),
    ("report", "--html"): (["report", "plan.yaml", "--deployment", "deployment.yaml"], ("plan.yaml", *OWN_FILES)),
    ("import-model", "--output"): (["import-model", "config.json"], ("config.json",)),
    ("import-table", "--output"): (["import-table", "output.txt", "--machine", "8 NPUs"], ("output.txt",)),
    ("schema", "--output"): (["schema", "deployment"], ()),
    ("sensitivity", "--output"): (["sensitivity", "folder", "--text", "text.txt"], ()),
}
PAIRS = [(command, option, file) for (command, option), (_, files) in COMMANDS.items() for file in files]


def output_options() -> Iterator[tuple[str, click.Option]]:
    context = click.Context(commplan)
    for name in commplan.list_commands(context):
        command = commplan.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield name, parameter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment with every file that one can name, and what is made from it."""
    monkeypatch.chdir(tmp_path)
    model = (CONFIGS / "models" / "qwen3-0.6b.yaml").read_text()
    layers = next(int(line.split()[1]) for line in model.splitlines() if line.startswith("num_hidden_layers"))
    (tmp_path / "model.yaml").write_text(model)
    weights = ", ".join(["1.0"] * layers)
    (tmp_path / "sensitivity.yaml").write_text(
        f"schema: commplan/sensitivity/v1\nattn_out: [{weights}]\nmlp_out: [{weights}]\n"
    )
    deployment = (CONFIGS / "deployments" / f"{SMALL}.yaml").read_text()
    hardware = next(line.split()[1] for line in deployment.splitlines() if line.startswith("hardware:"))
    text = (CONFIGS / "hardware" / f"{hardware}.yaml").read_text().split("\ncalibrations:")[0]
    (tmp_path / "hardware.yaml").write_text(f"{text}\ncalibrations: [{{file: calibration.yaml}}]\n")
    shutil.copy(CONFIGS / "calibrations" / "h200-2.yaml", tmp_path / "calibration.yaml")
    lines = [line for line in deployment.splitlines() if not line.startswith(("model:", "hardware:", "numerics:"))]
    own = ["model: model.yaml", "hardware: hardware.yaml", "numerics: {sensitivity: sensitivity.yaml}"]
    (tmp_path / "deployment.yaml").write_text("\n".join([*lines, *own, ""]))
    shutil.copy(HF_CONFIG, tmp_path / "config.json")
    shutil.copy(OUTPUT, tmp_path / "output.txt")
    answer("plan", "deployment.yaml", "-o", "plan.yaml")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def as_itself(file: str) -> str:
    return file


def with_detours(file: str) -> str:
    os.makedirs("inner", exist_ok=True)
    return f"./inner/../{file}"


def absolute(file: str) -> str:
    return os.path.abspath(file)


def by_symlink(file: str) -> str:
    os.symlink(file, "symlink")
    return "symlink"


def by_hard_link(file: str) -> str:
    os.link(file, "hard-link")
    return "hard-link"


def test_every_option_that_names_a_file_to_write_is_known_here() -> None:
    found = {
        (name, max(option.opts, key=len)) for name, option in output_options() if isinstance(option.type, OutputFile)
    }
    assert found == set(COMMANDS)


def test_an_option_that_writes_has_the_type_that_spares_what_is_read() -> None:
    for name, option in output_options():
        writes = any(word in (option.help or "").lower() for word in ("to write", "write a ", "where to write"))
        looks = isinstance(option.type, click.Path | click.File) or option.name in ("output", "out", "csv", "html")
        assert isinstance(option.type, OutputFile | OutputFolder) or not (writes or looks), (name, option.opts)


@pytest.mark.parametrize(("command", "option", "file"), PAIRS)
@pytest.mark.parametrize("called", [as_itself, with_detours, absolute, by_symlink, by_hard_link])
def test_what_a_command_reads_it_does_not_overwrite(
    command: str, option: str, file: str, called: Callable[[str], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commplan.planner.cli.calibrate._measured", lambda *_: pytest.fail("it has begun to measure"))
    target = called(file)
    before = contents(folder)
    error = refused(*COMMANDS[command, option][0], option, target)
    assert (error["kind"], error["file"], error["value"]) == ("overwrites_input", target, target)
    assert error["field"] == option
    assert contents(folder) == before


@pytest.mark.parametrize("preset", ["models/qwen3-0.6b", "deployments/qwen3-0.6b-cpu-tp2"])
def test_presets_are_not_overwritten(preset: str, tmp_path: Path) -> None:
    path = CONFIGS / f"{preset}.yaml"
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(path)
    assert refused("plan", SMALL, "-o", tmp_path / "link")["kind"] == "overwrites_input"
    assert path.read_bytes() == before


def test_a_page_beside_its_strategy_file_does_not_replace_it(folder: Path) -> None:
    """The page's default name is the file's with .html, which may be the file itself."""
    (folder / "plan.yaml").rename(folder / "plan.html")
    before = contents(folder)
    assert refused("report", "plan.html", "--deployment", "deployment.yaml")["kind"] == "overwrites_input"
    assert contents(folder) == before


def test_a_file_that_a_sweep_alone_reads_is_kept_and_no_other_output_is_written(folder: Path) -> None:
    shutil.copy("model.yaml", "other.yaml")
    before = contents(folder)
    sweep = ("what-if", "deployment.yaml", "--vary", "model=model.yaml,other.yaml", "--html", "page.html")
    assert refused(*sweep, "--csv", "other.yaml")["kind"] == "overwrites_input"
    assert contents(folder) == before


@pytest.mark.parametrize("there", [False, True])
def test_two_outputs_are_two_files(there: bool, folder: Path) -> None:
    if there:
        (folder / "out").write_text("old")
    before = contents(folder)
    error = refused("what-if", "deployment.yaml", "--csv", "out", "--html", "./out")
    assert (error["kind"], error["field"]) == ("overwrites_input", "--html")
    assert contents(folder) == before


def test_a_page_has_one_name(folder: Path) -> None:
    error = refused("report", "plan.yaml", "--deployment", "deployment.yaml", "-o", "a.html", "--html", "b.html")
    assert error["field"] == "--html"
    assert not (folder / "a.html").exists()


def test_the_samples_of_a_calibration_are_not_kept_in_a_deployment(folder: Path) -> None:
    """They are appended to FILE.partial, which is deleted in the end."""
    shutil.copy("deployment.yaml", "here.yaml.partial")
    before = contents(folder)
    assert refused("calibrate", "here.yaml.partial", "-o", "here.yaml")["kind"] == "overwrites_input"
    for fresh in ((), ("--fresh",)):
        error = refused("calibrate", "deployment.yaml", "-o", "here.yaml", *fresh)
        assert (error["file"], "interrupted run" in error["message"]) == ("here.yaml.partial", True)
    assert contents(folder) == before


@pytest.mark.parametrize(("command", "option"), list(COMMANDS))
def test_what_cannot_be_written_is_refused_before_anything_is_read(command: str, option: str, folder: Path) -> None:
    arguments, inputs = COMMANDS[command, option]
    before = contents(folder)
    os.mkfifo("pipe")
    for target in (".", "pipe", "/dev/null", "/dev/full", "no/such/folder"):
        assert refused(*arguments, option, target)["kind"] == "unwritable", target
    for name in inputs:
        (folder / name).unlink()
    assert refused(*arguments, option, ".")["kind"] == "unwritable"
    os.unlink("pipe")
    assert contents(folder) == {name: data for name, data in before.items() if name not in inputs}


def test_a_command_may_write_what_an_earlier_one_has_read(folder: Path) -> None:
    assert run("validate", "plan.yaml").code in (0, 2)
    assert answer("plan", "deployment.yaml", "-o", "plan.yaml")["strategy_file"] == "plan.yaml"
    assert json.loads(run("plan", "deployment.yaml", "-o", "plan.yaml", "--json").out)["hash"]
