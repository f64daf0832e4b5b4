"""Where torch_npu is missing (the main environment), every module here is skipped before it is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .fake_world import FakeWorld

VERDICT = "schema and shape contract verified; NPU execution unverified"
_HERE = Path(__file__).parent
_MISSING = importlib.util.find_spec("torch_npu") is None


class _WithoutTorchNpu(pytest.Module):
    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip("needs torch_npu, in an environment of its own: make test-npu", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _WithoutTorchNpu.from_parent(parent, path=module_path) if _MISSING else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """The verdict, if all of these tests ran and passed."""
    every = {path.name for path in _HERE.glob("test_*.py")}
    paths = [Path(report.fspath) for report in terminalreporter.getreports("passed")]
    passed = {path.name for path in paths if path.parent.name == _HERE.name}
    partial = terminalreporter.stats.get("deselected") or terminalreporter.stats.get("skipped")
    if exitstatus == 0 and every <= passed and not partial:
        terminalreporter.section("HCCL contract")
        terminalreporter.line(VERDICT)


@pytest.fixture
def fake_world() -> Iterator[FakeWorld]:
    """`fake_world(parallelism, rank)`: the groups of one rank, over process groups that talk to nobody."""
    from .fake_world import FakeWorld

    with FakeWorld() as world:
        yield world
