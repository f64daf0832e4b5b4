"""Where SGLang is missing (the main environment), modules that start a server are skipped before they are imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .questions import Stock

_MISSING = importlib.util.find_spec("sglang") is None


class _WithoutSGLang(pytest.Module):
    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip("needs SGLang, in an environment of its own: make test-sglang", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if _MISSING and module_path.name.startswith("test_server"):
        return _WithoutSGLang.from_parent(parent, path=module_path)
    return None


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`checkpoint("qwen3")`: the folder of a tiny model of that family, made once by a process of its own."""
    from .making import make

    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = make(family, tmp_path_factory.mktemp("checkpoints") / family)
        return made[family]

    return of


@pytest.fixture(scope="session")
def stock(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stock]:
    """`stock("qwen3")`: what a server of that family says without a plan; a start takes longer than its answers."""
    from .questions import ask_stock

    said: dict[str, Stock] = {}

    def of(family: str) -> Stock:
        if family not in said:
            said[family] = ask_stock(checkpoint(family), tmp_path_factory.mktemp("stock"))
        return said[family]

    return of
