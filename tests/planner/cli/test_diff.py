"""`diff` shows which decisions changed between two strategy files, over which tokens and layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from commplan.planner.strategy.file import load

from .commandline import answer, refused, run
from .deployments import deployment

R1 = "deepseek-r1-h20-tp8"
LATE_GATHER = Path(__file__).parents[1] / "strategy" / "file" / "plans" / "late_gather.yaml"


def planned(folder: Path, deployment: str, *options: str) -> Path:
    path = folder / f"{deployment}{len(list(folder.iterdir()))}.yaml"
    answer("plan", deployment, "-o", path, *options)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_bytes(LATE_GATHER.read_bytes())
    return path


def test_a_file_does_not_differ_from_itself(file: Path) -> None:
    report = answer("diff", file, file)
    assert (report["made_for"], report["changes"]) == ([], [])
    assert run("diff", file, file).out == "The decisions are the same.\n"


def test_predictions_are_no_decisions(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    lines = [line for line in file.read_text().splitlines() if "predicted:" not in line]
    other.write_text("\n".join(lines) + "\n")
    report = answer("diff", file, other)
    assert (report["made_for"], report["changes"]) == ([], [])


def test_a_changed_op_is_one_change_with_its_layers(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    old = "    - {layers: 0-60, attn_out: all_reduce, mlp_out: all_reduce}\n"
    new = (
        "    - {layers: 0-9, attn_out: all_reduce, mlp_out: all_reduce}\n"
        "    - {layers: '10-19,30', attn_out: reduce_scatter_all_gather, mlp_out: all_reduce}\n"
        "    - {layers: '20-29,31-60', attn_out: all_reduce, mlp_out: all_reduce}\n"
    )
    other.write_text(file.read_text().replace(old, new, 1))
    (change,) = answer("diff", file, other)["changes"]
    assert change == {
        "mode": "prefill",
        "first": 1,
        "last": 112,
        "layers": "10-19,30",
        "boundary": "attn_out",
        "before": "all_reduce",
        "after": "reduce_scatter_all_gather",
    }
    assert "10-19,30" in run("diff", file, other).out


def test_a_moved_edge_shows_only_the_tokens_between_the_two_edges(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    text = file.read_text().split("  decode:")
    text[0] = text[0].replace("tokens: [1, 112]", "tokens: [1, 100]").replace("tokens: [113,", "tokens: [101,")
    other.write_text("  decode:".join(text))
    changes = answer("diff", file, other)["changes"]
    assert {(c["first"], c["last"]) for c in changes} == {(101, 112)}
    assert {c["boundary"] for c in changes} == {"embed_out", "attn_in", "attn_out", "mlp_out", "head_in"}


def test_tokens_that_one_file_does_not_plan_are_shown(file: Path, tmp_path: Path) -> None:
    shorter = tmp_path / "shorter.yaml"
    shorter.write_text(file.read_text().replace("16384]", "8192]").replace("fingerprint: c7df", "fingerprint: 0000"))
    report = answer("diff", file, shorter)
    assert report["made_for"] == [
        {"field": "deployment.fingerprint", "before": "c7df75911fa0f11d", "after": "000075911fa0f11d"}
    ]
    (change,) = report["changes"]
    assert (change["first"], change["last"]) == (8193, 16384)
    assert (change["before"], change["after"]) == ("planned", "not planned")


def test_a_mode_that_one_file_lacks_is_shown(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text().replace("  decode:", "  target_verify:"))
    changes = {(c["mode"], c["before"], c["after"]) for c in answer("diff", file, other)["changes"]}
    assert changes == {("decode", "planned", "not planned"), ("target_verify", "not planned", "planned")}


@pytest.mark.slow
def test_files_of_different_models_say_what_they_were_made_for(file: Path, tmp_path: Path) -> None:
    other = planned(tmp_path, "qwen3-235b-h200-dp4")
    report = answer("diff", file, other)
    fields = {item["field"]: (item["before"], item["after"]) for item in report["made_for"]}
    assert fields["model"] == ("DeepSeek-R1", "Qwen3-235B-A22B")
    assert fields["hardware"] == ("h20-8", "h200-8")
    assert fields["parallelism.attn_dp"] == ("1", "4")
    assert "parallelism.tp" not in fields
    assert any(c["before"] == "no such layer" for c in report["changes"])
    out = run("diff", file, other).out
    first = next(line for line in out.splitlines() if line and " is faster than this plan " not in line)
    assert first == "Made for something else"


def test_diff_is_the_mirror_of_itself(file: Path, tmp_path: Path) -> None:
    other = planned(tmp_path, "deepseek-r1-h200-tp2")
    there, back = answer("diff", file, other)["changes"], answer("diff", other, file)["changes"]
    mirrored = [c | {"before": c["after"], "after": c["before"]} for c in back]
    assert sorted(map(str, there)) == sorted(map(str, mirrored))


def test_a_file_that_cannot_be_loaded_is_named(file: Path, tmp_path: Path) -> None:
    missing, illegal = tmp_path / "no.yaml", tmp_path / "illegal.yaml"
    illegal.write_text(file.read_text().replace("mlp_out: all_reduce", "mlp_out: none", 1))
    assert refused("diff", missing, file)["file"] == str(missing)
    error = refused("diff", file, illegal)
    assert (error["kind"], error["file"]) == ("illegal_plan", str(illegal))
    assert error["field"] == "modes.prefill[0].layers.0.mlp_out"


# ---- times -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("diff") / "plan.yaml"
    answer("plan", R1, "--set", "executor=sglang", "-o", path)
    return path.read_text()


def written(folder: Path, text: str, name: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_every_range_that_both_plan_has_both_steps_and_their_change(current: str, tmp_path: Path) -> None:
    a = written(tmp_path, current, "a.yaml")
    b = planned(tmp_path, R1, "--set", "executor=plan_only")
    report = answer("diff", a, b)
    assert report["notes"] == {"before": [], "after": []}
    assert [each["tokens"][1] for each in report["steps"] if each["mode"] == "decode"][-1] == 512
    for when, file in (("before_us", a), ("after_us", b)):
        told = {(m, r.last): r.predicted.step_us for m, ranges in load(file).modes.items() for r in ranges}
        found = {(each["mode"], each["tokens"][1]): each[when] for each in report["steps"]}
        assert set(told) <= set(found), "every range of either file ends a range of the table"
        assert {key: found[key] for key in told} == pytest.approx(told, abs=0.1)
    for each in report["steps"]:
        assert each["change_us"] == pytest.approx(each["after_us"] - each["before_us"])
    out = run("diff", a, b).out
    assert "Step at the last token count of each range, us" in out
    first = report["steps"][0]
    assert f"{first['before_us']:,.1f}" in out and f"{first['change_us']:+,.1f}" in out


def test_an_edited_file_is_priced_by_its_ops_and_not_by_its_predictions(current: str, tmp_path: Path) -> None:
    a = written(tmp_path, current, "a.yaml")
    b = written(tmp_path, current.replace("custom_one_shot", "nccl"), "b.yaml")
    report = answer("diff", a, b)
    assert max(each["change_us"] for each in report["steps"]) > 100
    assert report["notes"]["before"] == []
    assert any("it was edited" in note for note in report["notes"]["after"])
    assert "it was edited" in run("diff", a, b).err


def test_files_of_a_deployment_that_is_not_at_hand_are_told_by_their_predictions(tmp_path: Path) -> None:
    own, a, b = deployment(tmp_path), tmp_path / "a.yaml", tmp_path / "b.yaml"
    answer("plan", own, "-o", a)
    answer("plan", own, "--set", "modes.decode.tokens=[1, 4]", "-o", b)
    prefill, decode = answer("diff", a, b)["steps"]
    assert prefill["before_us"] == prefill["after_us"] == pytest.approx(load(a).modes["prefill"][0].predicted.step_us)
    assert (decode["tokens"], decode["before_us"], decode["change_us"]) == ([1, 4], None, None)
    assert "small is no preset (name its file with --deployment)" in run("diff", a, b).err
    *_, decode = (report := answer("diff", a, b, "--deployment", own))["steps"]
    assert decode["change_us"] == 0
    assert report["notes"] == {"before": [], "after": []}


def test_a_file_that_was_made_for_another_machine_than_today_is_told_by_its_predictions(
    current: str, tmp_path: Path
) -> None:
    a = written(tmp_path, current, "a.yaml")
    b = written(tmp_path, current.replace(load(a).hardware.fingerprint, "f" * 16), "b.yaml")
    notes = answer("diff", a, b)["notes"]
    assert notes["before"] == []
    assert notes["after"] == [
        "the hardware has changed since the file was planned: times are those that the file predicts"
    ]


def test_overrides_that_differ_are_part_of_what_a_file_was_made_for(current: str, tmp_path: Path) -> None:
    a = written(tmp_path, current, "a.yaml")
    b = planned(tmp_path, R1, "--set", "executor=sglang", "--set", "modes.decode.tokens=[1, 64]")
    made_for = {each["field"]: (each["before"], each["after"]) for each in answer("diff", a, b)["made_for"]}
    assert made_for["overrides.modes.decode.tokens"] == ("-", "[1, 64]")
    assert "overrides.executor" not in made_for


def test_files_that_were_made_for_the_same_are_held_against_each_other_by_what_it_is_today(
    current: str, tmp_path: Path
) -> None:
    """An edited file still holds the predictions of the first: by those nothing would have changed."""
    stale = current.replace(load(written(tmp_path, current, "a.yaml")).hardware.fingerprint, "f" * 16)
    a = written(tmp_path, stale, "a.yaml")
    b = written(tmp_path, stale.replace("custom_one_shot", "nccl"), "b.yaml")
    report = answer("diff", a, b)
    why = "the hardware has changed since the file was planned: times are of what it is now"
    assert report["notes"] == {"before": [why], "after": [why]}
    assert max(each["change_us"] for each in report["steps"]) > 100


def test_a_mode_that_the_deployment_has_not_is_told_by_predictions(current: str, tmp_path: Path) -> None:
    """An edit that no deployment would plan is still a file that can be compared."""
    text = current.replace("  decode:\n", "  target_verify:\n")
    a, b = written(tmp_path, text, "a.yaml"), written(tmp_path, text, "b.yaml")
    report = answer("diff", a, b)
    assert {each["mode"] for each in report["steps"]} == {"prefill", "target_verify"}
    assert any("modes.target_verify: the deployment has no such mode" in note for note in report["notes"]["after"])


def test_an_executor_that_there_is_not_is_refused_before_anything_is_printed(current: str, tmp_path: Path) -> None:
    a = written(tmp_path, current, "a.yaml")
    b = written(tmp_path, current.replace("executor: sglang\n", "executor: nccl\n"), "b.yaml")
    error = refused("diff", a, b)
    assert (error["file"], error["field"], error["value"]) == (str(b), "executor", "nccl")
