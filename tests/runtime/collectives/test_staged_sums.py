"""Sums through host memory: the bits of those by the library, in any order of calls; late and dead ranks spoil them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from commplan.planner.cost.composed import num_staged
from commplan.planner.cost.terms import Composed
from commplan.runtime.collectives.host_staging import HostStaging
from commplan.runtime.errors import RefusedError
from commplan.runtime.kernels.staged import memory as memory_module
from commplan.runtime.kernels.staged import page
from commplan.runtime.ranks.groups import Group
from commplan.runtime.ranks.spawning import run_ranks

from ...wire_cases import FORMATS
from ..world import RankWorld
from . import staged_sums as staged

Worlds = Callable[[int], RankWorld]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ranks", [2, 3])
def test_sums_have_the_bits_of_those_by_the_library_in_any_number_of_pieces(ranks: int, world: Worlds) -> None:
    for found in world(ranks).run(staged.beside_the_library, ranks):
        assert found == dict.fromkeys(found, True)
        assert len(found) == 3 * len(FORMATS)


@pytest.mark.parametrize("ranks", [2, 3])
def test_calls_of_any_size_in_any_order_of_halves_are_right_by_ranks_that_are_late(ranks: int, world: Worlds) -> None:
    assert world(ranks).run(staged.in_any_order, ranks, 300, 7) == [0] * ranks


def test_a_half_is_kept_until_all_have_read_it(world: Worlds) -> None:
    assert world(2).run(staged.read_late, 2, True) == [[True] * 5] * 2


def test_without_acknowledgements_it_would_not_be(world: Worlds) -> None:
    found = world(2).run(staged.read_late, 2, False)
    assert not all(found[1])


def test_a_sum_that_broke_off_is_not_taken_for_the_next(world: Worlds) -> None:
    assert world(2).run(staged.broken_off, 2) == [[True] * 6] * 2


@pytest.mark.parametrize(("ranks", "pieces"), [(2, 1), (2, 4), (3, 2)])
def test_peers_of_a_rank_that_hangs_give_it_up_and_no_wrong_number_leaves(
    ranks: int, pieces: int, world: Worlds
) -> None:
    for verdicts, said, longest in world(ranks).run(staged.hangs, ranks, pieces, 2.0):
        assert verdicts[:2] == ["right"] * 2
        assert verdicts[2:] == ["spoiled"] * 3
        assert "a peer has sent nothing" in said
        assert longest < 1.5


@pytest.mark.parametrize(("ranks", "pieces"), [(2, 1), (3, 4)])
def test_peers_of_a_rank_whose_process_ends_give_it_up(ranks: int, pieces: int) -> None:
    *found, gone = run_ranks(staged.ends, ranks, ranks, pieces)
    assert gone == (["right"] * 2, "")
    for verdicts, said in found:
        assert verdicts == ["right"] * 2 + ["spoiled"] * 2
        assert "a peer has sent nothing" in said


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_are_late_by_about_the_patience_of_others_have_right_numbers_or_none(
    ranks: int, world: Worlds
) -> None:
    calls = [call for seed in range(6) for found in world(ranks).run(staged.wandering, ranks, seed) for call in found]
    assert not any("wrong" in call for call in calls)
    assert any("spoiled" in call for call in calls) and any("right" in call for call in calls)


def test_what_one_who_has_given_up_writes_over_its_message_is_not_taken(world: Worlds) -> None:
    first, second = world(2).run(staged.overwritten, 2)
    assert first == ["right"] * 2 + ["spoiled"] * 2
    assert second == ["right"] + ["spoiled"] * 3


def test_what_has_not_come_is_nan_in_every_format(world: Worlds) -> None:
    for found in world(2).run(staged.spoiled, 2):
        assert found == dict.fromkeys(found, True)
        assert len(found) == len(FORMATS)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("nobody", "rank 0 of its group does not find the memory of rank 1"),
        ("another", "rank 0 of its group does not find the memory of rank 1"),
        ("token", "rank 0 of its group reads in the memory of rank 1 what that has not written"),
        ("full", "rank 1 of its group cannot make memory to share (No space left on device)"),
    ],
)
def test_ranks_that_share_no_memory_are_refused_alike_with_the_way_out(what: str, reason: str, world: Worlds) -> None:
    first, second = world(2).run(staged.elsewhere, 2, what)
    assert reason in first
    assert "or leave `impl` out, so that the library sums" in first
    assert ("in one container" in first) == (what != "full")
    assert second == first


def test_it_is_refused_where_a_message_that_is_tried_does_not_come(world: Worlds) -> None:
    for said in world(2).run(staged.not_received, 2):
        assert "does not receive through host memory what others send: leave `impl` out" in said


def test_what_is_refused_and_that_the_next_sum_is_right(world: Worlds) -> None:
    for two_shot, pieces, rows, alone, large, next_sum in world(2).run(staged.refusals, 2):
        assert "messages are carried for gather alone" in two_shot
        assert "up to 8 are carried" in pieces
        assert "were asked for" in rows
        assert "two ranks at least" in alone
        assert "less than 2 GiB" in large
        assert next_sum == "right"


@pytest.mark.parametrize(("ranks", "pieces"), [(2, 1), (3, 4)])
def test_the_host_launches_as_much_as_the_planner_charges(
    ranks: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []

    class Flags:
        error = torch.zeros(1, dtype=torch.int32)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_: launched.append(name)

    monkeypatch.setattr(HostStaging, "_copy", staticmethod(lambda *_: launched.append("copy")))
    memory = SimpleNamespace(half_bytes=4096, halves=[torch.zeros(2, 4096, dtype=torch.int8)] * ranks)
    carrier = HostStaging(Group("tp", None, ranks, 0), torch.device("cpu"), memory, Flags())  # type: ignore[arg-type]
    carrier.begin()
    for _ in range(pieces):
        got = torch.zeros(ranks, 64, dtype=torch.int8)
        carrier.start_all_gather(got, got[0], carrier._group).wait()
    carrier.end()
    work = Composed("int8_all_reduce", "host_staged_norm", "nccl", "bf16", "tp", 2, "gather", pieces=pieces)
    assert len(launched) == num_staged(work, ranks)


def test_who_cannot_use_the_memory_says_why_and_its_peers_do_not_wait(world: Worlds) -> None:
    first, *others = world(3).run(staged.one_cannot, 3)
    assert first == "no such launcher"
    assert others == ["impl: rank 0 of its group cannot use host memory, and says why: leave `impl` out, so that the "
                      "library sums"] * 2  # fmt: skip


def test_a_gpu_that_cannot_lock_the_memory_is_told_and_cudas_error_is_not_left_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgotten: list[bool] = []
    monkeypatch.setattr(memory_module, "_cuda", lambda: SimpleNamespace(cudaHostRegister=lambda *_: 2))
    monkeypatch.setattr(memory_module, "_forget_error", lambda: forgotten.append(True))
    segment = mmap.mmap(-1, 3 * page.PAGE_BYTES)
    failure = memory_module.HostMemory([segment], page.PAGE_BYTES)._lock()
    assert failure[2] == 2 and forgotten == [True]
    with pytest.raises(RefusedError, match=r"rank 0 of its group cannot lock .*CUDA error 2.*ulimit -l"):
        memory_module._refuse_failures([list(failure)], 4096)
