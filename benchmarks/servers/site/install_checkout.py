"""Lays a checkout of commplan out as an installation has it, where no package can be built: FOLDER/commplan and its
entry points.

    python3 install_checkout.py CHECKOUT FOLDER
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def install(checkout: Path, folder: Path) -> None:
    """Copy packages by pyproject.toml's table of their folders, the outer ones first, and say what is installed."""
    about = tomllib.loads((checkout / "pyproject.toml").read_text())
    project, places = about["project"], about["tool"]["setuptools"]["package-dir"]
    outer = min(places, key=len)
    shutil.rmtree(folder / outer, ignore_errors=True)
    for old in folder.glob(f"{outer}-*.dist-info"):
        shutil.rmtree(old)
    for package in sorted(places, key=len):
        target = folder / package.replace(".", "/")
        shutil.copytree(checkout / places[package], target, ignore=_LEFT_OUT, dirs_exist_ok=True)
    info = folder / f"{outer}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {outer}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text("\n".join(_entry_points(project)))


def _entry_points(project: dict) -> list[str]:
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    return [line for group, points in groups.items() for line in _group(group, points)]


def _group(group: str, points: dict[str, str]) -> list[str]:
    return [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""]


if __name__ == "__main__":
    install(Path(sys.argv[1]), Path(sys.argv[2]))
