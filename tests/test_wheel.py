"""The wheel holds everything, and works where the sources are not.

An editable install hides what a wheel lacks: a package missing from pyproject.toml, a YAML file that no pattern covers.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]  # commplan.planner -> planner

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline from a copy, so that no build folder of an earlier one leaks into it."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    for folder in FOLDERS.values():
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
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(site, "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
    where = run([scripts / "python", "-c", "import commplan.planner as p; print(p.__file__)"], cwd=place).strip()
    assert Path(where).is_relative_to(Path(site)), "this would test the sources, not the wheel"
    return scripts / "commplan"


def test_wheel_holds_every_source_file_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".typed", ".css", ".js")
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected


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


def run(command: list[str | Path], cwd: Path) -> str:
    """Standard output of a command that must succeed, in an environment that points at no sources."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout
