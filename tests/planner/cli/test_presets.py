"""`presets` lists what ships with commplan, and everything it lists can be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from .commandline import answer, refused, run

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
            assert set(entry) == {"name", "description", "path"}
            assert entry["description"]


@pytest.mark.parametrize("kind", [*FOLDERS, "strategies"])
def test_one_kind_can_be_asked_for(kind: str) -> None:
    assert answer("presets", kind) == {kind: answer("presets")[kind]}
    out = run("presets", kind).out
    assert out.startswith(f"{kind}\n")
    assert all(entry["name"] in out for entry in answer("presets", kind)[kind])


def test_every_preset_says_where_its_file_is() -> None:
    listed = answer("presets")
    for kind, folder in FOLDERS.items():
        for entry in listed[kind]:
            assert Path(entry["path"]).samefile(folder / f"{entry['name']}.yaml")
            assert run("presets", kind, entry["name"]).out == f"{entry['path']}\n"
        assert f"{Path(listed[kind][0]['path']).parent}/NAME.yaml" in run("presets", kind).out


def test_every_preset_takes_one_line() -> None:
    for kind, entries in answer("presets").items():
        lines = run("presets", kind).out.splitlines()
        assert len(lines) == len(entries) + (2 if kind == "strategies" else 3)
        assert all(len(line) <= 120 for line in lines if "NAME.yaml" not in line)


def test_a_preset_that_is_none_is_refused_with_the_nearest() -> None:
    error = refused("presets", "hardware", "h20")
    assert (error["field"], error["value"], "'h20-8'" in error["message"]) == ("NAME", "h20", True)


def test_every_file_in_configs_lies_where_it_is_looked_for() -> None:
    """No folder below, no other spelling of the ending: such a file would never be found."""
    for path in (ROOT / "configs").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert path.suffix == ".yaml", path
            assert path.parent.parent == ROOT / "configs", path
