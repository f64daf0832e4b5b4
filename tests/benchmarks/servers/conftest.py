"""The benchmark's modules, which import each other by plain names, as they do when it is run."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks" / "servers"
MODULES = (
    "answers",
    "checkpoints",
    "configurations",
    "foretold",
    "kept",
    "measuring",
    "profiling",
    "proof",
    "running",
    "shapes",
    "tables",
    "telling",
)
SITE = ("flashinfer_site", "install_checkout", "pack", "patches")


@pytest.fixture(scope="session")
def bench() -> Iterator[SimpleNamespace]:
    """`bench.kept` and so on. The script is `bench.script`: its name is that of the package that it measures."""
    paths = [str(FOLDER), str(FOLDER / "site"), str(FOLDER / "sums_left_out")]
    sys.path[:0] = paths
    try:
        found = {name: importlib.import_module(name) for name in (*MODULES, *SITE)}
        found["sums_left_out"] = importlib.import_module("sums_left_out")
        spec = importlib.util.spec_from_file_location("servers_script", FOLDER / "sglang.py")
        assert spec is not None and spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        yield SimpleNamespace(**found, script=script, folder=FOLDER)
    finally:
        for path in paths:
            sys.path.remove(path)
