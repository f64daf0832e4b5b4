"""What a host lacks is said before any rank is started: one line, with an install command that works in a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from commplan.planner.strategy.file import CommplanError, Op, Parallelism, StrategyFile, save
from commplan.runtime.bound import host

from ..strategy_files import ranges_of, strategy_file

COMMPLAN = Path(sys.executable).parent / "commplan"
TINY = "qwen3-0.6b-cpu-tp2"
INSTALL = "pip install '.[{}]' in a checkout of commplan"
NONE, AR = Op("none"), Op("all_reduce")
Checkpoint = Callable[..., Path]


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., str]:
    """`without("torch")("check", ...)`: the one line of the error of a command that sees no such package."""

    def hiding(packages: str, *arguments: object, code: int = 2) -> str:
        started = tmp_path / "started"
        begun = time.monotonic()
        done = subprocess.run(
            [COMMPLAN, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            env=os.environ
            | {
                "PYTHONPATH": str(Path(__file__).parent / "hidden"),
                "HIDDEN_PACKAGES": packages,
                "STARTED_PROCESSES": str(started),
                "CUDA_VISIBLE_DEVICES": "",
            },
        )
        assert not started.exists(), f"started: {started.read_text()}"
        assert done.returncode == code, done
        assert done.stdout == "" or code == 0
        assert "Traceback" not in done.stderr
        assert time.monotonic() - begun < 25
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == (code != 0), done.stderr
        return lines[0] if lines else done.stdout

    return hiding


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMMPLAN.exists(), reason="the command is not installed beside this Python"),
]


def on_two_ranks(folder: Path) -> StrategyFile:
    return strategy_file(folder, Parallelism(2), {"prefill": [ranges_of([AR, *([NONE, AR] * 4), NONE])]})


@pytest.fixture
def plan(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    save(on_two_ranks(checkpoint("qwen3")), path)
    return path


def test_the_hiding_hides_and_the_noting_notes(tmp_path: Path) -> None:
    """Otherwise the tests below would pass without a look."""
    script = (
        "import multiprocessing as m; p = m.get_context('fork').Process(target=int); p.start(); p.join(); import torch"
    )
    hiding = {"HIDDEN_PACKAGES": "torch", "STARTED_PROCESSES": str(tmp_path / "started")}
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent / "hidden")} | hiding
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env)
    assert "No module named 'torch'" in done.stderr
    assert (tmp_path / "started").read_text().count("\n") == 1


@pytest.mark.parametrize("package", ["torch", "transformers"])
@pytest.mark.parametrize("words", [("check",), ("run", "--tokens", "1,2"), ("run", "--prompt", "hello")], ids=" ".join)
def test_a_checkpoint_needs_packages_that_are_named(
    package: str, words: tuple[str, ...], without: Callable[..., str], plan: Path, checkpoint: Checkpoint
) -> None:
    command, *more = words
    said = without(package, command, plan, "--model", checkpoint("qwen3"), *more)
    assert said == f"error: needs {package}: {INSTALL.format('runtime')} (got '{package}')"


@pytest.mark.parametrize("package", ["torch", "transformers", "safetensors"])
def test_rotate_names_the_package_that_is_missing(package: str, without: Callable[..., str], tmp_path: Path) -> None:
    said = without(package, "rotate", "nowhere", "-o", "rotated")
    assert said == f"error: needs {package}: {INSTALL.format('runtime')} (got '{package}')"
    assert not (tmp_path / "rotated").exists()


def test_calibrate_without_torch_says_so_and_forgets_nothing(without: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "here.yaml.partial").write_text("measured for hours\n")
    said = without("torch", "calibrate", TINY, "-o", "here.yaml", "--fresh")
    assert said == f"error: needs torch: {INSTALL.format('runtime')} (got 'torch')"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.yaml.partial"]
    assert (tmp_path / "here.yaml.partial").read_text() == "measured for hours\n"


def test_verify_without_torch_says_so(without: Callable[..., str], tmp_path: Path) -> None:
    without("", "plan", TINY, "-o", "plan.yaml", code=0)
    said = without("torch", "verify", "plan.yaml")
    assert said == f"error: needs torch: {INSTALL.format('runtime')} (got 'torch')"


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("qwen3-32b-h200-tp2", ("torch sees no CUDA device", "cpu-gloo")),
        ("qwen3-32b-a2-tp2", ("torch_npu is not installed", INSTALL.format("npu"))),
    ],
)
def test_calibrate_and_verify_look_for_devices_first(
    preset: str, words: tuple[str, ...], without: Callable[..., str], tmp_path: Path
) -> None:
    without("", "plan", preset, "-o", "plan.yaml", code=0)
    for arguments in (
        ("calibrate", preset, "-o", "x.yaml"),
        ("verify", "plan.yaml", "--tokens", "1", "--mode", "decode"),
    ):
        said = without("", *arguments)
        assert said.startswith("error: hardware.backend: cannot be used here: ")
        assert all(word in said for word in words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.yaml"]


def test_check_and_run_look_for_devices_first(
    without: Callable[..., str], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    file = on_two_ranks(folder)
    save(replace(file, hardware=replace(file.hardware, backend="nccl")), tmp_path / "plan.yaml")
    for arguments in (("check",), ("run", "--tokens", "1,2")):
        command, *more = arguments
        said = without("", command, "plan.yaml", "--model", folder, *more)
        assert "torch sees no CUDA device" in said


def test_planning_reports_and_export_need_neither_torch_nor_the_extras(without: Callable[..., str]) -> None:
    hidden = "torch transformers pyarrow triton sglang accelerate safetensors"
    without(hidden, "plan", TINY, "--set", "executor=sglang", "-o", "plan.yaml", code=0)
    assert "Nearest without the plugin" in without(hidden, "export", "sglang", "plan.yaml", code=0)
    without(hidden, "validate", "plan.yaml", code=0)
    without(hidden, "what-if", TINY, "--vary", "tokens=1", "--html", "sweep.html", code=0)
    without(hidden, "report", "plan.yaml", "--deployment", TINY, "--set", "executor=sglang", code=0)


def test_imports_and_servers_name_their_extra_too(without: Callable[..., str]) -> None:
    without("", "plan", TINY, "--set", "executor=sglang", "-o", "plan.yaml", code=0)
    said = without("pyarrow aiconfigurator_core", "calibrate", "--import", "aiconfigurator:h200_sxm")
    assert said.startswith("error: --import: needs ")
    assert INSTALL.format("import") in said
    said = without("sglang", "launch", "sglang", "plan.yaml", "--model-path", "owner/name", "--dry-run")
    assert "SGLang 0.5.23 is not installed beside commplan" in said
    assert "pip install . in a checkout of commplan" in said


def test_too_few_devices_are_counted_before_ranks_start(monkeypatch: pytest.MonkeyPatch) -> None:
    there = SimpleNamespace(device_type="cuda", device_count=lambda: 1)
    monkeypatch.setattr("commplan.runtime.backends.load_backend", lambda name: there)
    host.check_host("nccl", 1)
    with pytest.raises(CommplanError, match="2 ranks need as many cuda devices, and this host shows 1") as raised:
        host.check_host("nccl", 2)
    assert (raised.value.field, raised.value.value) == ("hardware.backend", "nccl")


def test_no_advice_anywhere_names_a_package_index_for_commplan() -> None:
    """commplan is installed from a checkout: `pip install commplan[...]` would find nothing, or something else."""
    root = Path(__file__).parents[3]
    wrong = "commplan" + "["
    places = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("planner/**/*.py"), *root.glob("runtime/**/*.py")]
    places += [*root.glob("benchmarks/**/*.py")]
    assert [str(path.relative_to(root)) for path in places if wrong in path.read_text(encoding="utf-8")] == []
