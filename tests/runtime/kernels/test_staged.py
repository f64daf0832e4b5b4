"""Kernels beside copies through host memory, emulated and compiled: what they tell, await, take back and spoil."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from commplan.runtime.kernels.staged import page
from commplan.runtime.ranks.spawning import run_ranks

from ...wire_cases import FORMATS
from . import emulated_staged as emulated

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")
_TAKEN_BACK = [(at * page.STRIDE, page.GIVEN_UP) for at in range(page.FLAGS)]


@pytest.mark.slow
def test_what_kernels_tell_await_take_back_and_spoil() -> None:
    (found,) = run_ranks(emulated.alone, 1)
    assert found["told"] == ({0: [], 1: [(page.told_at(1, 3), 9), (page.read_at(1), 9)], 2: []}, [5, 9, 0], 0)
    assert found["came"] == ([], [5, 8, 0], 0, True)
    assert found["taken back"] == (_TAKEN_BACK, [5, 8, 1], 1, [[-1], [0], [-1]])
    assert found["silent"] == (True, [6, 8, 1])
    for name in ("late", "of another use", "given up", "not read"):
        assert found[name] == (True, [5, 8, 1], 1), name


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_sums_by_kernels_are_right_in_any_order_and_those_of_late_ranks_are_spoiled(ranks: int) -> None:
    claims = (
        ("beside_the_library", ()),
        ("in_any_order", (40, 3)),
        ("read_late", (True,)),
        ("hangs", (2, 4.0)),
        *(("wandering", (seed,)) for seed in range(3)),
        ("spoiled", ()),
    )
    for same, wrong, kept, (verdicts, said, _), *wandering, spoiled in run_ranks(
        emulated.in_turn, ranks, ranks, *claims
    ):
        assert same == dict.fromkeys(same, True) and len(same) == 3 * len(FORMATS)
        assert wrong == 0
        assert kept == [True] * 5
        assert verdicts == ["right"] * 2 + ["spoiled"] * 3
        assert "a peer has sent nothing" in said
        assert not any("wrong" in call for calls in wandering for call in calls)
        assert spoiled == dict.fromkeys(spoiled, True)


@pytest.mark.slow
def test_what_one_who_has_given_up_writes_over_its_message_is_not_taken() -> None:
    (first,), (second,) = run_ranks(emulated.in_turn, 2, 2, ("overwritten", ()))
    assert first == ["right"] * 2 + ["spoiled"] * 2
    assert second == ["right"] + ["spoiled"] * 3


def test_a_page_holds_every_flag_apart_and_the_token() -> None:
    words = [page.told_at(half, piece) for half in range(2) for piece in range(page.PIECES)]
    words += [page.read_at(half) for half in range(2)]
    assert sorted(words) == [number * page.STRIDE for number in range(page.FLAGS)]
    assert page.TOKEN_AT not in words and (page.TOKEN_AT + 2) * 8 <= page.PAGE_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 8])
def test_they_compile_for_a_hopper_gpu_once_for_all_halves_pieces_and_sizes(world: int) -> None:
    from commplan.runtime.ranks.groups import Group

    from .compiled_launches import compiled_code, hopper

    words, error = torch.zeros(page.WORDS, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    memory: Any = SimpleNamespace(page_addresses=[0] * world)
    with hopper() as launches:
        from commplan.runtime.kernels.staged.launch import StagedKernels

        kernels = StagedKernels(Group("tp", None, world, 1), memory, words, error)
        for half, piece, size in ((0, 1, 5136), (1, 7, 4096), (0, 0, 1 << 27)):
            kernels.await_read(half)
            kernels.tell(half, piece)
            kernels.await_piece(half, piece)
            kernels.arrived(torch.empty(world, size, dtype=torch.int8, device="meta"), half, piece)
            kernels.finish(half)
        by_name: dict[str, Any] = {}
        for source, _, _ in launches:
            by_name.setdefault(source.name, set()).add(source.hash())
        code = {source.name: compiled_code(source) for source, _, _ in launches[:5]}
    assert len(launches) == 15
    # Whoever looks at a flag reads it over the bus: one warp does, whatever the size.
    assert {(given[:3], metadata.num_warps) for _, metadata, given in launches} == {((1, 1, 1), 1)}
    assert {name: len(hashes) for name, hashes in by_name.items()} == dict.fromkeys(by_name, 1)
    for name in ("tell_kernel", "finish_kernel"):
        stores = [line for line in code[name].splitlines() if "fence.acq_rel.sys" in line or "st.global" in line]
        assert "fence" in stores[0] and "st.global.b64" in stores[1], stores
    for name in ("await_read_kernel", "await_piece_kernel", "arrived_kernel"):
        assert code[name].count("ld.volatile.global") >= world
        assert "atom" not in code[name]  # not every bus has them
