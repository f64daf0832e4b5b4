"""Entries for vLLM's tables: lines of its source, where this machine was measured and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.export.vllm_source import Entry, VllmSource

from ..tiny_setups import Machine, dense_model, own_table, table

MIB = 1 << 20
SIZES = [1 << k for k in range(12, 28)]  # 4 KiB to 128 MiB


def us(impl: str, size: int, changes: dict[int, float]) -> dict[str, Any]:
    """Times by size: each stands from its size on."""
    return table("all_reduce", size, {s: _at(changes, s) for s in SIZES}, impl=impl)


def fused_us(size: int, changes: dict[int, float]) -> dict[str, Any]:
    row = 2 * 256
    return own_table("all_reduce", size, {s // row: _at(changes, s) for s in SIZES}, "flashinfer_fused")


def _at(changes: dict[int, float], size: int) -> float:
    return next(time for start, time in reversed(changes.items()) if start <= size)


@pytest.fixture
def entries(folder):
    def of(*tables: dict[str, Any], capability: str = "9.0") -> dict[tuple[str, int], Entry]:
        folder.executor = "vllm"
        on = Machine(tables=tables, compute_capability=capability, peer_access=True)
        found = VllmSource(folder.setup(dense_model(2), on, tp=2)).entries()
        return {(entry.table, entry.ranks): entry for entry in found}

    return of


FUSION, CUSTOM = "FI_ALLREDUCE_FUSION_MAX_SIZE_MB", "CUSTOM_ALL_REDUCE_MAX_SIZES"
SYMMETRIC = "SYMM_MEM_ALL_REDUCE_MAX_SIZES"


def test_a_fused_kernel_that_is_behind_from_a_size_on_gets_a_line_of_vllms_table(entries) -> None:
    # The rival has its norm beside it, some us that grow with the message.
    found = entries(us("nccl", 2, {0: 20.0}), fused_us(2, {0: 10.0, 32 * MIB: 5000.0}))[FUSION, 2]
    assert (found.key, found.line) == ("90", "2: 16,  # 16MB")
    assert found.file == "vllm/compilation/passes/fusion/allreduce_rms_fusion.py"
    assert {point.rival for point in found.points} == {"nccl"}
    assert found.note is not None and "whatever pass_config says" in found.note


def test_an_entry_that_stands_has_no_line(entries) -> None:
    found = entries(us("nccl", 2, {0: 20.0}), fused_us(2, {0: 10.0}))[FUSION, 2]
    assert found.verdict is not None and found.verdict.stands == 64 * MIB
    # Ahead beyond it as well: that is a line.
    assert found.line == "2: 128,  # 128MB"
    assert entries(us("nccl", 2, {0: 20.0}), fused_us(2, {0: 10.0, 128 * MIB: 5000.0}))[FUSION, 2].line is None


def test_ranks_that_were_not_measured_have_no_line_and_say_which_table_lacks(entries) -> None:
    found = entries(us("nccl", 2, {0: 20.0}), fused_us(2, {0: 10.0}))
    assert found[FUSION, 4].missing == "no table of flashinfer_fused over 4 ranks of this machine"
    assert (found[FUSION, 4].line, found[FUSION, 4].verdict) == (None, None)


def test_limits_below_a_mib_are_spelled_as_vllm_does(entries) -> None:
    own = us("vllm_custom", 8, {0: 10.0, 128 << 10: 90.0})
    found = entries(us("nccl", 8, {0: 20.0}), own)[CUSTOM, 8]
    assert (found.key, found.line) == ('"9.0"', "8: MiB // 16,  # 64 KB")
    fewer = entries(us("nccl", 8, {0: 20.0}), fused_us(8, {0: 10.0, 512 << 10: 5000.0}))[FUSION, 8]
    assert fewer.line == "8: 0.25,  # 0.25MB"


def test_its_own_kernel_is_cut_to_8_mib_whatever_its_entry_says(entries) -> None:
    found = entries(us("nccl", 4, {0: 20.0}), us("vllm_custom", 4, {0: 10.0}), capability="10.0")[CUSTOM, 4]
    assert found.line == "4: 8 * MiB,  # 8 MB"
    assert found.note is not None and "max_size=8192 * 1024" in found.note
    there = entries(us("nccl", 2, {0: 20.0}), us("vllm_custom", 2, {0: 10.0}))[CUSTOM, 2]
    assert there.line is None
    assert there.note is not None and "asked first, takes messages up to 64 MiB" in there.note


def test_symmetric_memory_is_the_algorithm_that_vllm_takes_for_these_ranks(entries) -> None:
    found = entries(us("nccl", 8, {0: 20.0}), us("multimem", 8, {0: 10.0, 64 * MIB: 90.0}))
    assert (found[SYMMETRIC, 8].impl, found[SYMMETRIC, 8].line) == ("multimem", "8: 32 * MiB,  # 32 MB")
    blackwell = entries(us("nccl", 4, {0: 20.0}), us("torch_two_shot", 4, {0: 10.0}), capability="10.0")
    assert (blackwell[SYMMETRIC, 4].impl, blackwell[SYMMETRIC, 4].line) == ("torch_two_shot", "4: 128 * MiB,  # 128 MB")


def test_devices_that_vllm_has_no_entries_for_have_none_here(entries) -> None:
    assert entries(us("nccl", 2, {0: 20.0}), capability="8.9") == {}
