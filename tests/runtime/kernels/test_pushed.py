"""All-reduce pushed in pieces, emulated: right for any number of pieces, and the bits of other kernels."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from commplan.runtime.ranks.spawning import run_ranks

from . import emulated_peers, emulated_pushed

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")
_MOST_ROWS = 8


def run(function: Any, world: int, width: int, folder: Path, *args: Any) -> list[Any]:
    emulated_peers.make_buffers(folder, world, _MOST_ROWS, width)
    return run_ranks(function, world, str(folder), *args, timeout_s=600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "width", "dtype", "tile"),
    [(2, 80, torch.bfloat16, 1), (3, 64, torch.float16, 2), (2, 1040, torch.bfloat16, 3)],
)
def test_any_number_of_pieces_gives_the_bits_of_the_other_kernels(
    world: int, width: int, dtype: torch.dtype, tile: int, tmp_path: Path
) -> None:
    first, *others = run(emulated_pushed.sums, world, width, tmp_path, [8, 1, 7, 8, 3, 2], width, dtype, tile)
    for rows, worst, same, _ in first:
        assert worst <= 2.0 * torch.finfo(dtype).eps, rows
        assert same, rows
    assert others == [first] * (world - 1), "all ranks hold the same bits"


@pytest.mark.slow
def test_rows_that_are_made_piece_by_piece_are_summed(tmp_path: Path) -> None:
    for found in run(emulated_pushed.made_in_pieces, 2, 64, tmp_path):
        assert found == [(True, True, [(0, 2), (2, 6), (6, 8)])] * 4


@pytest.mark.slow
def test_every_use_of_a_half_has_other_flags(tmp_path: Path) -> None:
    assert run(emulated_pushed.replayed, 2, 64, tmp_path) == [True, True]


@pytest.mark.slow
def test_a_flag_of_an_earlier_use_with_more_pieces_counts_no_more(tmp_path: Path) -> None:
    assert run(emulated_pushed.fewer_pieces_between, 2, 64, tmp_path) == [True, True]


@pytest.mark.slow
def test_rows_that_one_who_has_given_up_sends_over_others_are_not_taken(tmp_path: Path) -> None:
    for nothing_but_nan, said in run(emulated_pushed.overwritten, 2, 64, tmp_path):
        assert nothing_but_nan
        assert "a peer has sent nothing" in said


@pytest.mark.slow
def test_after_another_op_was_given_up_no_rows_are_taken_over_which_others_were_sent(tmp_path: Path) -> None:
    assert run(emulated_pushed.given_up_elsewhere, 2, 64, tmp_path) == [[True, True]] * 2


@pytest.mark.slow
def test_rows_that_were_overwritten_while_they_were_read_are_not_taken(tmp_path: Path) -> None:
    assert run(emulated_pushed.stopped_inside, 2, 64, tmp_path) == [[False, True], [True]]


@pytest.mark.slow
def test_no_rows_are_no_use_and_a_sum_has_to_be_asked_for(tmp_path: Path) -> None:
    for right, said in run(emulated_pushed.nothing_to_push, 2, 64, tmp_path):
        assert right
        assert said == ["all_reduce, pushed: the sum of the rows pushed before was not asked for"]


@pytest.mark.slow
def test_what_is_refused(tmp_path: Path) -> None:
    for said in run(emulated_pushed.refusals, 2, 64, tmp_path):
        assert len(said) == 5
        assert all("a workspace for 8 rows of 64 elements of 2 bytes" in text for text in said[:3])
        assert "other rows were pushed than those that are summed" in said[3]
        assert "has no room in these Peers" in said[4]


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (1, [1]),
        (1535, [1535]),
        (1536, [1024, 512]),
        (4096, [1024, 2048, 1024]),
        (12000, [5120, 4096, 2048, 736]),
        (40000, [10240, 16384, 8192, 4096, 1088]),
    ],
)
def test_pieces(rows: int, sizes: list[int]) -> None:
    from commplan.runtime.kernels.pushed import pieces_of

    found = pieces_of(rows)
    assert [last - first for first, last in found] == sizes
    assert found[0][0] == 0 and found[-1][1] == rows
    assert all(a[1] == b[0] for a, b in pairwise(found))


def test_blocks_have_flags_enough_and_pieces_begin_with_one() -> None:
    from commplan.runtime.kernels.pushed import block_rows, pieces_of
    from commplan.runtime.kernels.room import FLAGS

    for rows in [*range(1, 9000, 7), *range(9000, 400_000, 9973)]:
        block = block_rows(rows)
        assert -(-rows // block) <= FLAGS and block % 128 == 0
        assert all(first % block == 0 and first < last for first, last in pieces_of(rows)), rows


@pytest.mark.slow
@pytest.mark.parametrize(("width", "world"), [(5120, 2), (7168, 4)])
def test_it_compiles_for_a_hopper_gpu_once_for_both_halves(width: int, world: int) -> None:
    from commplan.runtime.kernels.op_launches import Task
    from commplan.runtime.kernels.pushed import Pushed
    from commplan.runtime.kernels.room import pushed_bytes
    from commplan.runtime.kernels.symmetric import Workspace
    from commplan.runtime.ranks.groups import Group

    from .compiled_launches import compiled_code, hopper

    half = pushed_bytes(world, width, 8)
    views = tuple(torch.zeros(2 * half, dtype=torch.int8) for _ in range(world))
    peers = torch.tensor([view.data_ptr() for view in views])
    uses, state, error = (torch.zeros(2, dtype=d) for d in (torch.int64, torch.int64, torch.int32))
    x = torch.zeros(8, width, dtype=torch.bfloat16)
    with hopper() as launches:
        pushed = Pushed(Group("tp", None, world, 1), Workspace(half, peers, None, views), 8, width, uses, state, error)
        start = pushed.prepare(Task(8, width, 8, True, True, 1e-6), "early", 100)
        for _ in range(2):
            start(x, x, x[0], x.clone(), x.clone())
        names = [source.name for source, _, _ in launches]
        turned, summed = ({source.hash() for source, *_ in launches[n::2]} for n in (0, 1))
        code = compiled_code(launches[1][0])
    assert names == ["turn_kernel", "pushed_kernel"] * 2
    assert len(turned) == len(summed) == 1
    assert ".global.sys.acquire." in code and ".global.sys.relaxed." in code
    touched = code[: code.index("griddepcontrol.wait")]
    assert not [word for word in ("ld.global", "st.global", "atom.", "ld.volatile", "red.") if word in touched]
