"""Limits of SGLang's own all-reduce: its environment for the ranks served, entries of its table for all measured."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.export.sglang_source import VARIABLE, SglangTable, sglang_table, spelled
from commplan.planner.export.sglang_table import KB, MB, SM90, SM100, Heuristic, table_for
from commplan.planner.strategy.errors import InputError

from ..tiny_setups import Machine, dense_model, table

SIZES = [1 << k for k in range(12, 28)]  # 4 KiB to 128 MiB


def us(impl: str, size: int, changes: dict[int, float]) -> dict[str, Any]:
    """Times by size: each stands from its size on."""
    points = {s: next(time for start, time in reversed(changes.items()) if start <= s) for s in SIZES}
    return table("all_reduce", size, points, impl=impl)


@pytest.fixture
def exported(folder):
    def of(*tables: dict[str, Any], tp: int = 4, capability: str | None = "9.0", **machine: Any) -> SglangTable:
        folder.executor = "sglang"
        on = Machine(tables=tables, compute_capability=capability, peer_access=True, **machine)
        return sglang_table(folder.setup(dense_model(2), on, tp=tp))

    return of


def ahead_to(end: int, size: int = 4) -> tuple[dict[str, Any], ...]:
    """SGLang's kernel takes half of what NCCL takes up to a size, and twice that beyond it."""
    return us("nccl", size, {0: 20.0}), us("custom_one_shot", size, {0: 10.0, 2 * end: 40.0})


def test_a_kernel_that_is_behind_from_a_size_on_is_capped_by_environment_and_by_table(exported) -> None:
    found = exported(*ahead_to(4 * MB))
    assert found.environment == {VARIABLE: "4096"}
    entry = next(e for e in found.entries if e.ranks == 4)
    assert (found.function, entry.line) == ("_sm90_configs", "graph=(384.0 * KB, 384.0 * KB, 4.000 * MB),")


def test_a_kernel_that_is_ahead_beyond_its_cap_is_let_by_the_environment_alone(exported) -> None:
    """Its table goes to 128 MiB for four ranks: only the cap of 16 is in the way."""
    found = exported(*ahead_to(64 * MB))
    assert found.environment == {VARIABLE: "65536"}
    assert all(entry.line is None for entry in found.entries)


def test_a_default_that_is_right_is_told_nothing(exported) -> None:
    found = exported(*ahead_to(16 * MB))
    assert (found.environment, found.arguments) == ({}, [])


def test_a_kernel_that_is_behind_everywhere_is_switched_off(exported) -> None:
    found = exported(us("nccl", 4, {0: 20.0}), us("custom_one_shot", 4, {0: 40.0}))
    assert (found.environment, found.arguments) == ({}, ["--disable-custom-all-reduce"])


def test_where_its_cap_does_not_reach_the_two_shot_push_that_is_said(exported) -> None:
    """Over eight ranks of SM 10.0 a slot of 1 MiB takes 4 MiB by two shots."""
    found = exported(*ahead_to(MB, 8), tp=8, capability="10.0")
    entry = next(e for e in found.entries if e.ranks == 8)
    assert found.environment == {VARIABLE: "1024"}
    assert entry.line == "graph=(256.0 * KB, 256.0 * KB, 1.000 * MB), two_shot_push=1.000 * MB,"
    assert entry.note == "The variable alone leaves its two-shot push up to 4 MiB"
    assert all(e.note is None for e in exported(*ahead_to(MB, 8), tp=8).entries)


def test_the_environment_is_that_of_the_ranks_served(exported) -> None:
    """Entries are for every group that was measured."""
    found = exported(*ahead_to(4 * MB, 2), *ahead_to(8 * MB, 4), tp=2)
    assert found.environment == {VARIABLE: "4096"}
    assert [(e.ranks, e.cap_kb) for e in found.entries if e.cap_kb] == [(2, 4096), (4, 8192)]
    assert "no table of custom_one_shot over 8 ranks" in str(next(e for e in found.entries if e.ranks == 8).missing)


def test_where_the_switch_adds_beyond_the_new_end_it_no_longer_does() -> None:
    """Multicast is asked before two shots, so a lower end of those alone would change nothing."""
    assert SM90[8].graph.up_to(MB).multicast == (512 * KB, MB)
    assert SM90[8].graph.up_to(256 * KB).multicast is None
    assert SM90[8].graph.up_to(MB).most == MB
    assert SM100[2].graph.up_to(4 * MB) == Heuristic(4 * MB, 4 * MB, 4 * MB)


def test_a_heuristic_is_spelled_as_the_table_has_it() -> None:
    text = spelled(SM90[8].graph)
    assert text == "(128.0 * KB, 128.0 * KB, 32.00 * MB, Range(512.0 * KB, 128.0 * MB))"
    values = eval(text, {"KB": KB, "MB": MB, "Range": lambda *ends: ends})  # as Python reads it in that file
    assert values == (128 * KB, 128 * KB, 32 * MB, (512 * KB, 128 * MB))


@pytest.mark.parametrize(
    ("capability", "function"),
    [("9.0", "_sm90_configs"), ("10.0", "_sm100_configs"), ("10.3", "_sm100_configs"), ("10.7", "_sm107_configs")],
)
def test_its_table_goes_by_compute_capability(capability: str, function: str) -> None:
    assert table_for(capability)[0] == function
    assert table_for("8.0")[0] is None


@pytest.mark.parametrize(
    ("machine", "field", "words"),
    [
        ({"topology": "pcie"}, "hardware", "over NVLink"),
        ({"vendor": "ascend"}, "hardware", "joins NVIDIA devices"),
        ({"capability": None}, "hardware.compute_capability", "write it as in 9.0"),
    ],
)
def test_machines_that_it_does_not_run_on_are_refused(
    exported, machine: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        exported(**machine)
    assert caught.value.field == field
    assert words in caught.value.message
