"""Commands in lanes: each on GPUs of its own, none twice, all ended."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "lanes.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lanes_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def lanes(script: ModuleType, folder: Path, *steps: dict[str, Any], minutes: float = 0.5, count: int = 2) -> Any:
    path = folder / "steps.yaml"
    path.write_text(yaml.safe_dump([{"least": 0, **step} for step in steps]))
    return script.Lanes(path, ["0,1", "2,3"][:count], folder / "out", minutes)


def test_every_step_runs_once_on_the_gpus_of_one_lane(
    script: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    meet = "touch {out}/here.$CUDA_VISIBLE_DEVICES; while [ $(ls {out}/here.* | wc -l) -lt 2 ]; do sleep 0.02; done"
    steps = [{"name": name, "run": f"{meet}; echo {name} $CUDA_VISIBLE_DEVICES >>{{out}}/ran"} for name in "ab"]
    other = {"name": "c", "run": "echo c $CUDA_VISIBLE_DEVICES >>{out}/ran", "lane": 1}
    assert lanes(script, tmp_path, *steps, other).run() == []
    ran = (tmp_path / "out" / "ran").read_text().splitlines()
    gpus = dict(line.split() for line in ran)
    assert len(ran) == 3 and gpus["c"] == "2,3"
    assert {gpus["a"], gpus["b"]} == {"0,1", "2,3"}, "both wait for the other, so they ran at once"
    assert "lane 1 (GPUs 2,3): c ended with 0" in capfd.readouterr().out
    assert lanes(script, tmp_path, *steps, other).run() == []
    assert (tmp_path / "out" / "ran").read_text().splitlines() == ran, "done is done"


def test_a_step_that_fails_or_takes_too_long_is_not_done_and_leaves_nothing_running(
    script: ModuleType, tmp_path: Path
) -> None:
    fails = {"name": "fails", "run": "echo it is ill; exit 3"}
    hangs = {"name": "hangs", "run": "sleep 300 & echo $! >{out}/pid; wait", "minutes": 0.1}
    last = {"name": "last", "run": "true"}
    assert lanes(script, tmp_path, fails, hangs, last, count=1).run() == ["fails", "hangs"]
    assert (tmp_path / "out" / "fails.log").read_text() == "it is ill\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "out" / "pid").read_text()), 0)


def test_a_step_is_begun_again_until_it_says_that_all_is_there(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SHORT_S", 0.0)
    run = "echo {minutes} >>{out}/n; if [ $(wc -l <{out}/n) = 3 ]; then echo all is there; fi"
    assert lanes(script, tmp_path, {"name": "rows", "run": run, "again": True}).run() == []
    assert len((tmp_path / "out" / "n").read_text().splitlines()) == 3


def test_a_step_that_ends_at_once_is_not_begun_for_ever(script: ModuleType, tmp_path: Path) -> None:
    step = {"name": "rows", "run": "echo x >>{out}/n", "again": True}
    assert lanes(script, tmp_path, step).run() == ["rows"]
    assert (tmp_path / "out" / "n").read_text() == "x\n"


def test_what_is_not_begun_any_more(script: ModuleType, tmp_path: Path) -> None:
    begun = time.monotonic()
    assert lanes(script, tmp_path, {"name": "long", "run": "sleep 60", "least": 2}, minutes=1).run() == ["long"]
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1", "a list of steps is expected"),
        ("- {name: a, run: b, hours: 3}", "step 1: .*hours"),
        ("- {name: a}", "step 1: .*run"),
        ("- {name: a, run: b}\n- {name: a, run: c}", "named twice: a"),
    ],
)
def test_files_that_are_refused(script: ModuleType, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "steps.yaml").write_text(text)
    with pytest.raises(ValueError, match=says):
        script.read_steps(tmp_path / "steps.yaml")


@pytest.mark.parametrize("path", sorted((SCRIPT.parent).glob("*_ranks.yaml")), ids=lambda path: path.stem)
def test_shipped_steps_can_be_read_and_name_scripts_that_are_there(script: ModuleType, path: Path) -> None:
    for step in script.read_steps(path):
        scripts = [word for word in step.run.split() if word.startswith("benchmarks/")]
        assert scripts or "commplan" in step.run or "pytest" in step.run, step.name
        assert all((SCRIPT.parents[1] / name).is_file() for name in scripts), step.name
