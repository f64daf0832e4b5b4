"""The wheel holds everything, and works where the sources are not.

An editable install hides what a wheel lacks: a package missing from pyproject.toml, a YAML file that no pattern covers.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]  # commplan.planner -> planner, commplan -> planner/library
MOST_BYTES = 2_000_000

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]  # one worker builds it, once


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline from a copy, so that no build folder of an earlier one leaks into it."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    for folder in {Path(folder).parts[0] for folder in FOLDERS.values()}:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", copy], cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def commplan(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in a fresh environment that has the wheel, and borrows its dependencies from this one."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    scripts = place / "bin"
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], cwd=place)
    site = run([scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=place).strip()
    # A folder named in a .pth file is searched last, and its own .pth files (the editable commplan) are not read.
    borrowed = {path for path in sys.path if Path(path).name == "site-packages"}
    Path(site, "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
    where = run([scripts / "python", "-c", "import commplan.planner as p; print(p.__file__)"], cwd=place).strip()
    assert Path(where).is_relative_to(Path(site)), "this would test the sources, not the wheel"
    return scripts / "commplan"


def test_wheel_holds_every_source_file_and_nothing_else(wheel: Path) -> None:
    expected = {
        installed(path)
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".typed", ".css", ".js")
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected


def installed(path: Path) -> str:
    """Where a source file lies in a wheel: by the innermost folder that is a package of its own."""
    inside = [(package, ROOT / folder) for package, folder in FOLDERS.items() if path.is_relative_to(ROOT / folder)]
    package, folder = max(inside, key=lambda each: len(each[1].parts))
    return f"{package.replace('.', '/')}/{path.relative_to(folder).as_posix()}"


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES


def test_wheel_carries_license_and_notice(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {Path(name).name: name for name in archive.namelist() if ".dist-info/licenses/" in name}
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(held[name]) == (ROOT / name).read_bytes()


def test_installed_command_plans_a_preset_from_an_empty_folder(commplan: Path, tmp_path: Path) -> None:
    plan = json.loads(run([commplan, "plan", "deepseek-r1-h20-tp8", "--json"], cwd=tmp_path))
    assert set(plan["modes"]) == {"prefill", "decode"}
    assert list(tmp_path.iterdir()) == []


def test_installed_command_lists_every_preset(commplan: Path, tmp_path: Path) -> None:
    presets = json.loads(run([commplan, "presets", "--json"], cwd=tmp_path))
    folders = {folder: ROOT / "configs" / folder for folder in ("models", "hardware", "calibrations", "deployments")}
    for kind, folder in {**folders, "executors": ROOT / "planner" / "executors"}.items():
        assert {entry["name"] for entry in presets[kind]} == {path.stem for path in folder.glob("*.yaml")}
    assert run([commplan, "presets"], cwd=tmp_path).startswith("deployments\n")


LIBRARY = """
import sys
before = set(sys.modules)
import commplan
print("import:", *sorted(set(sys.modules) - before))
print("version:", commplan.__version__)
plan = commplan.plan("deepseek-r1-h20-tp8")
print("plan:", plan)
print("explain:", plan.explain(layer=12).chosen.op)
print("what_if:", commplan.what_if("qwen3-0.6b-cpu-tp2", vary={"tp": [1, 2]}))
"""


def test_installed_library_answers_from_an_empty_folder(commplan: Path, tmp_path: Path) -> None:
    told = run([commplan.with_name("python"), "-c", LIBRARY], cwd=tmp_path)
    said = dict(line.split(": ", 1) for line in told.splitlines())
    assert said["import"] == "commplan"
    assert said["version"] == PROJECT["project"]["version"]
    assert said["plan"].startswith("<commplan.Plan deepseek-r1-h20-tp8: DeepSeek-R1 on h20-8, TP 8, plan_only")
    assert said["explain"] == "reduce_scatter(impl=commplan_triton_norm)"
    assert said["what_if"].startswith("<commplan.WhatIf qwen3-0.6b-cpu-tp2: 2 points of tp")
    assert list(tmp_path.iterdir()) == []


USER = """
import commplan

plan = commplan.plan("deepseek-r1-h20-tp8", set={"parallelism.tp": 4})
reveal_type(plan.step_us("prefill", 64))
reveal_type(plan.to_records())
reveal_type(commplan.what_if("x", vary={"tp": [1, 2]}).points)
reveal_type(commplan.__version__)
try:
    commplan.explain("x", layer="12")
except commplan.NoLegalPlanError as error:
    reveal_type(error)
"""


def test_a_program_that_uses_the_installed_library_is_typed(commplan: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    python = commplan.with_name("python")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MYPY"))}
    done = subprocess.run(
        [*mypy, "user.py"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False, timeout=300
    )
    revealed = [line.partition('"')[2].rstrip('"') for line in done.stdout.splitlines() if "Revealed" in line]
    assert revealed == [
        "float",
        "list[dict[str, Any]]",
        "tuple[commplan.planner.what_if.sweep.Point, ...]",
        "str",
        "commplan.planner.strategy.errors.NoLegalPlanError",
    ], done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1 and 'Argument "layer" to "explain" has incompatible type "str"' in errors[0], errors


def run(command: list[str | Path], cwd: Path) -> str:
    """Standard output of a command that must succeed, in an environment that points at no sources."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout
