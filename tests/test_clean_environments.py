"""`pip install .` in a fresh environment of every Python at hand: the planner alone, without torch, used elsewhere.

Needs a package index, as `make test` does; where pip finds none the tests are skipped, and fail under CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
CAN_INSTALL = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"

pytestmark = pytest.mark.slow


def python_of(version: str) -> str | None:
    """A Python of this version that can make an environment: on the PATH, or beside the one that runs the tests."""
    beside = sorted(Path(sys.base_prefix).parent.glob(f"*{version}*/bin/python{version}"))
    found = [shutil.which(f"python{version}"), f"{sys.base_prefix}/bin/python{version}", *map(str, beside)]
    for candidate in filter(None, found):
        try:
            told = subprocess.run(
                [candidate, "-c", CAN_INSTALL], capture_output=True, text=True, check=True, timeout=60
            ).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if told.strip() == version:
            return candidate
    return None


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """What a command prints, in an environment that points at no sources."""
    apart = ("PYTHON", "VIRTUAL_ENV", "PYTEST")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(apart)}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == code, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout + (done.stderr if code else "")


@pytest.fixture(scope="module", params=[pytest.param(v, marks=pytest.mark.xdist_group(f"python{v}")) for v in VERSIONS])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of scripts of an environment in which nothing but `pip install .` was done."""
    python = python_of(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} here that can make an environment")
    place, copy = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("source")
    run(python, "-m", "venv", place, cwd=place)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("planner", "runtime", "configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    installed = subprocess.run(
        [*pip, "install", "."], cwd=copy, capture_output=True, text=True, check=False, timeout=600
    )
    if installed.returncode:
        _skip_without_index(*pip, "download", "--no-deps", "--dest", place / "looked")
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(copy)
    return place / "bin"


def _skip_without_index(*download: str | Path) -> None:
    """An installation has failed: was it for want of the packages that it needs?"""
    needed = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    found = subprocess.run([*download, *needed], capture_output=True, text=True, check=False, timeout=600)
    if found.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip finds no packages: {' '.join(found.stderr.splitlines()[-1:])}")


def test_the_planner_is_installed_alone(environment: Path, tmp_path: Path) -> None:
    listed = json.loads(run(environment / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    names = {package["name"].lower().replace("_", "-") for package in listed}
    assert {"commplan", "click", "networkx", "pydantic", "pyyaml"} <= names
    assert not names & {"torch", "numpy", "transformers", "plotly"}


def test_the_command_plans_explains_and_proves(environment: Path, tmp_path: Path) -> None:
    commplan = environment / "commplan"
    assert run(commplan, "--version", cwd=tmp_path).strip().endswith(PROJECT["project"]["version"])
    run(commplan, "plan", "deepseek-r1-h20-tp8", "--cross-check", "-o", "strategy.yaml", cwd=tmp_path)
    golden = (ROOT / "tests" / "golden" / "deepseek-r1-h20-tp8.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "strategy.yaml").read_text(encoding="utf-8") == golden
    assert run(commplan, "validate", "strategy.yaml", cwd=tmp_path) == "strategy.yaml: legal\n"
    run(commplan, "explain", "deepseek-r1-h20-tp8", "--strategy", "strategy.yaml", "--layer", "12", cwd=tmp_path)
    run(commplan, "what-if", "qwen3-0.6b-cpu-tp2", "--vary", "tp=1,2", "--csv", "sweep.csv", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"strategy.yaml", "sweep.csv"}


LIBRARY = """
import sys
before = set(sys.modules)
import commplan
assert set(sys.modules) - before == {"commplan"}, set(sys.modules) - before
plan = commplan.plan("qwen3-0.6b-cpu-tp2")
plan.save("strategy.yaml")
assert commplan.validate("strategy.yaml") and commplan.load("strategy.yaml").hash == plan.hash
assert plan.explain().to_records() and commplan.what_if("qwen3-0.6b-cpu-tp2", vary={"tp": [1, 2]}).answers
assert not {"torch", "numpy", "networkx", "click"} & set(sys.modules)
"""


def test_the_library_answers_without_a_warning(environment: Path, tmp_path: Path) -> None:
    assert run(environment / "python", "-W", "error", "-c", LIBRARY, cwd=tmp_path) == ""


def test_what_needs_more_says_what_to_install(environment: Path, tmp_path: Path) -> None:
    told = run(environment / "commplan", "calibrate", "qwen3-0.6b-cpu-tp2", "-o", "x.yaml", cwd=tmp_path, code=2)
    assert told.startswith("error: needs torch: pip install '.[runtime]'")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
