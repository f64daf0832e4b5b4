"""`presets` lists what ships with commplan, and everything it lists can be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from .commandline import answer, run

ROOT = Path(__file__).parents[3]
FOLDERS = {
    **{kind: ROOT / "configs" / kind for kind in ("deployments", "models", "hardware", "calibrations")},
    "executors": ROOT / "planner" / "executors",
}


def test_every_file_of_configs_and_executors_is_listed() -> None:
    listed = answer("presets")
    for kind, folder in FOLDERS.items():
        assert {entry["name"] for entry in listed[kind]} == {path.stem for path in folder.glob("*.yaml")}


def test_every_strategy_is_listed() -> None:
    names = [entry["name"] for entry in answer("presets")["strategies"]]
    files = {path.stem for path in (ROOT / "planner/strategies").glob("*.py")} - {"__init__"}
    assert sorted(names) == sorted(files)
    assert names[0] == "all_reduce"


def test_every_preset_says_what_it_is() -> None:
    for entries in answer("presets").values():
        for entry in entries:
            assert set(entry) == {"name", "description"}
            assert entry["description"]


@pytest.mark.parametrize("kind", [*FOLDERS, "strategies"])
def test_one_kind_can_be_asked_for(kind: str) -> None:
    assert answer("presets", kind) == {kind: answer("presets")[kind]}
    out = run("presets", kind).out
    assert out.startswith(f"{kind}\n")
    assert all(entry["name"] in out for entry in answer("presets", kind)[kind])


def test_every_file_in_configs_lies_where_it_is_looked_for() -> None:
    """No folder below, no other spelling of the ending: such a file would never be found."""
    for path in (ROOT / "configs").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert path.suffix == ".yaml", path
            assert path.parent.parent == ROOT / "configs", path
