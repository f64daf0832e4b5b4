"""A strategy file knows what it was made for: its executor, its overrides, and by fingerprints what has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import load, plan_hash

from .commandline import answer, refused, run
from .deployments import deployment

R1 = "deepseek-r1-h20-tp8"
SMALL = "qwen3-0.6b-cpu-tp2"
LINK = "hardware.links.intra_node.bandwidth_gb_per_s"
IN_SGLANG = ("--set", "executor=sglang", "--set", "modes.prefill.tokens=[1, 8192]")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("made_for") / "plan.yaml"
    answer("plan", R1, *IN_SGLANG, "-o", path)
    return path.read_text()


@pytest.fixture
def file(planned: str, tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(planned)
    return path


def edited(file: Path, old: str, new: str) -> Path:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return file


def without_overrides(file: Path) -> Path:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("overrides:")]
    file.write_text("\n".join(lines) + "\n")
    return file


# ---- the file's own words --------------------------------------------------------------------------------------------


def test_a_file_holds_the_overrides_it_was_planned_with(file: Path) -> None:
    assert load(file).overrides == {"executor": "sglang", "modes.prefill.tokens": [1, 8192]}


def test_a_file_without_overrides_has_no_such_line(tmp_path: Path) -> None:
    answer("plan", SMALL, "-o", tmp_path / "plan.yaml")
    assert "overrides" not in (tmp_path / "plan.yaml").read_text()


def test_the_last_of_two_values_of_a_field_is_the_one_that_is_held(tmp_path: Path) -> None:
    twice = ("--set=modes.decode.tokens=[1, 4]", "--set=modes.decode.tokens=[1, 8]")
    answer("plan", SMALL, *twice, "-o", tmp_path / "plan.yaml")
    assert load(tmp_path / "plan.yaml").overrides == {"modes.decode.tokens": [1, 8]}


def test_what_would_run_does_not_depend_on_the_overrides_that_are_told(file: Path) -> None:
    before = plan_hash(load(file))
    assert plan_hash(load(without_overrides(file))) == before


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        ("overrides: [executor]", "overrides", "a mapping is expected"),
        ("overrides: {a..b: 1}", "overrides", "a field is written parallelism.tp"),
        ("overrides: {'a=b': 1}", "overrides", "a field is written parallelism.tp"),
        ("overrides: {parallelism.tpp: 8}", "overrides.parallelism.tpp", "did you mean 'tp'?"),
        ("overrides: {modes.prefill.tokens: none}", "overrides.modes.prefill.tokens", "[min, max] is expected"),
    ],
)
def test_overrides_that_are_wrong_are_refused_as_the_files(file: Path, line: str, field: str, words: str) -> None:
    error = refused("explain", "--strategy", edited(file, _overrides(file), line))
    assert (error["file"], error["field"]) == (str(file), field)
    assert words in error["message"]


def _overrides(file: Path) -> str:
    return next(line for line in file.read_text().splitlines() if line.startswith("overrides:"))


# ---- explain ---------------------------------------------------------------------------------------------------------


def explained(*arguments: object) -> Any:
    return answer("explain", "--boundary", "attn_out", *arguments)


def test_a_file_is_explained_for_its_own_executor_without_a_word_about_it(file: Path) -> None:
    found = explained("--strategy", file)
    assert found == explained(R1, *IN_SGLANG)
    assert found["notes"] == []


def test_a_deployment_that_is_named_is_that_of_the_file_too(file: Path) -> None:
    assert explained(R1, "--strategy", file) == explained("--strategy", file)


def test_an_older_file_is_explained_for_its_executor_and_says_what_it_may_lack(file: Path) -> None:
    found = explained("--strategy", without_overrides(file))
    (note,) = found["notes"]
    assert "modes.prefill.tokens were [1, 8192] and are [1, 16384]" in note
    assert found["chosen"] == explained(R1, *IN_SGLANG)["chosen"]


def test_another_executor_than_the_files_is_refused(file: Path) -> None:
    error = refused("explain", "--strategy", file, "--set", "executor=transformers")
    assert (error["file"], error["field"], error["value"]) == (str(file), "executor", "sglang")
    assert refused("report", file, "--set", "executor=plan_only")["field"] == "executor"
    assert explained("--strategy", file, "--set", "executor=sglang")["notes"] == []


def test_a_machine_that_the_user_changes_is_said_with_the_step_that_the_file_predicts(file: Path) -> None:
    notes = explained("--strategy", file, "--set", f"{LINK}=200")["notes"]
    assert any(f"the hardware has changed by --set {LINK}: times here are not the file's" in note for note in notes)
    assert any("the file predicts" in note and "what it was made for has changed" in note for note in notes)


def test_a_machine_whose_description_has_changed_is_said(tmp_path: Path, file: Path) -> None:
    edited(file, load(file).hardware.fingerprint, "f" * 16)
    assert explained("--strategy", file)["notes"] == [
        "the hardware has changed since the file was planned: times here are not the file's"
    ]
    assert "note: the hardware has changed since the file was planned" in run("explain", "--strategy", file).err


def test_a_plan_for_another_machine_says_which(file: Path) -> None:
    notes = explained("--strategy", file, "--set", "hardware=h200-8")["notes"]
    assert any("the hardware has changed by --set hardware" in note for note in notes)
    edited(file, "hardware: {name: h20-8,", "hardware: {name: h30-8,")
    edited(file, load(file).hardware.fingerprint, "f" * 16)
    (note,) = explained("--strategy", file)["notes"]
    assert note.startswith("the hardware is h20-8, and the file was made for h30-8")


def test_a_file_for_another_library_is_refused(file: Path) -> None:
    error = refused("explain", "--strategy", edited(file, "backend: nccl", "backend: hccl"))
    assert (error["file"], error["field"], error["value"]) == (str(file), "hardware.backend", "hccl")


def test_an_edited_file_says_that_its_predictions_are_of_other_ops(file: Path) -> None:
    edited(file, "impl: commplan_triton_norm", "impl: nccl")
    found = explained("--strategy", file, "--tokens", 100)
    (note,) = found["notes"]
    assert "the file predicts" in note and note.endswith("it was edited, or planned by another version")
    faster = [o["reason"] for o in found["alternatives"] if o["legal"] and o["slower_by_us"] < -0.05]
    assert faster and all(reason.endswith(": the strategy file has the other op") for reason in faster)


def test_neither_deployment_nor_file_is_asked_for(file: Path) -> None:
    assert refused("explain")["field"] == "DEPLOYMENT"
    assert "name it with --strategy" in refused("explain", file)["message"]


def test_a_file_of_a_deployment_that_is_no_preset_asks_for_it(tmp_path: Path) -> None:
    own = deployment(tmp_path)
    answer("plan", own, "--set", "modes.decode.tokens=[1, 4]", "-o", tmp_path / "plan.yaml")
    error = refused("explain", "--strategy", tmp_path / "plan.yaml")
    assert (error["field"], error["value"]) == ("deployment.name", "small")
    assert answer("explain", own, "--strategy", tmp_path / "plan.yaml")["notes"] == []


# ---- the others ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_takes_executor_and_overrides_from_the_file(file: Path) -> None:
    assert run("report", file).code == 0
    page = file.with_suffix(".html").read_text()
    assert "has changed" not in page and "the file predicts" not in page
    edited(file, "custom_one_shot", "nccl")
    assert run("report", file).code == 0
    assert "it was edited, or planned by another version" in file.with_suffix(".html").read_text()


def test_validate_says_what_has_changed_and_calls_no_file_illegal_for_that(file: Path) -> None:
    assert answer("validate", file)["files"][0]["notes"] == []
    edited(file, load(file).hardware.fingerprint, "f" * 16)
    (found,) = answer("validate", file)["files"]
    assert (found["legal"], found["notes"]) == (True, ["the hardware has changed since the file was planned"])
    result = run("validate", file)
    assert (result.code, result.out) == (0, f"{file}: legal\n")
    assert "the hardware has changed" in result.err


def test_validate_compares_with_a_deployment_that_is_named(tmp_path: Path) -> None:
    own, plan = deployment(tmp_path), tmp_path / "plan.yaml"
    answer("plan", own, "-o", plan)
    deployment(tmp_path, ("decode: {tokens: [1, 8]", "decode: {tokens: [1, 16]"))
    assert answer("validate", plan)["files"][0]["notes"] == []
    (note,) = answer("validate", plan, "--deployment", own)["files"][0]["notes"]
    assert "modes.decode.tokens were [1, 8] and are [1, 16]" in note


def test_validate_groups_in_json_what_it_groups_in_text(file: Path) -> None:
    edited(file, "executor: sglang", "executor: transformers")
    result = run("validate", file, "--json")
    (found,) = result.json["files"]
    assert result.code == 2
    assert 0 < len(found["groups"]) <= len(found["errors"])
    text = run("validate", file).out
    for group in found["groups"]:
        assert f"{group['field']}: {group['reason']}" in text


def test_a_file_for_another_model_is_refused_as_that_and_not_for_its_executor(tmp_path: Path) -> None:
    """The executor of the file could not load the weights of the deployment that is named."""
    answer("plan", SMALL, "-o", tmp_path / "plan.yaml")
    for command in (("explain", R1, "--strategy", tmp_path / "plan.yaml"),):
        error = refused(*command)
        assert (error["file"], error["field"]) == (str(tmp_path / "plan.yaml"), "model.fingerprint")
