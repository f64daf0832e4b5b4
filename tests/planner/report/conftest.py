"""Pages that the tests of reports look at, made once, and a browser to open them in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..cli.commandline import run
from .browser import Tab, chromium

SWEPT = ("--vary", "tokens=64,1024,16384", "--vary", "tp=4,8,16")
R1, A2, LONG = "deepseek-r1-h20-tp8", "qwen3-32b-a2-tp2", "qwen3-235b-h200-tp8"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


def reported(folder: Path, deployment: str) -> Path:
    file = folder / f"{deployment}.yaml"
    assert run("plan", deployment, "-o", file).code == 0
    result = run("report", file)
    assert (result.code, result.err) == (0, "")
    return file.with_suffix(".html")


@pytest.fixture(scope="session")
def planned(folder: Path) -> Path:
    """The page of a strategy file, with INT8."""
    return reported(folder, A2)


@pytest.fixture(scope="session")
def sharded(folder: Path) -> Path:
    """The page of a strategy file with five ranges and every op of TP-SP."""
    return reported(folder, R1)


@pytest.fixture(scope="session")
def long_names(folder: Path) -> Path:
    """The page of 94 layers, with the names of every strategy at its axes."""
    return reported(folder, LONG)


@pytest.fixture(scope="session")
def swept(folder: Path) -> Path:
    """The page of a sweep with illegal points."""
    page = folder / "sweep.html"
    result = run("what-if", R1, "--set", "loaded_layers=8", *SWEPT, "--html", page)
    assert (result.code, result.err) == (0, "")
    return page


@pytest.fixture(scope="session")
def many_lines(folder: Path) -> Path:
    """The page of a sweep of one deployment with a line for each of many long names."""
    page = folder / "many.html"
    links = "hardware.links.intra_node.bandwidth_gb_per_s=50,100,200,400"
    numerics = "numerics.loosest=exact,reordered,quantized"
    sweep = ("--vary", "tokens=16,256,4096,32768", "--vary", links, "--vary", numerics)
    assert run("what-if", A2, *sweep, "--html", page).code == 0
    return page


@pytest.fixture(scope="session")
def pages(planned: Path, sharded: Path, long_names: Path, swept: Path, many_lines: Path) -> dict[str, Path]:
    return {"plan": planned, "sharded": sharded, "long": long_names, "sweep": swept, "many": many_lines}


@pytest.fixture(scope="session")
def tab() -> Iterator[Tab]:
    """A tab of a browser that runs for all tests."""
    with chromium() as browser:
        yield Tab(browser)
