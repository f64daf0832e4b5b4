"""The beginning of the next weights is asked for beside a sum, which gives what it gives without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from commplan.runtime.errors import RefusedError
from commplan.runtime.ranks.spawning import run_ranks

pytest.importorskip("triton", reason="needs triton (Linux)")

from commplan.runtime.kernels.read_ahead import MOST_ROWS, VARIABLE, Ahead, ahead_of, bytes_ahead

from . import emulated_peers, emulated_read_ahead
from .compiled_launches import compiled_code, hopper, peers_of

EPS = 1e-6
LINE = 128


def matrix(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(rows, columns, dtype=dtype)


def asked(weight: torch.Tensor, most_bytes: int) -> tuple[int, ...]:
    """(rows, bytes from one to the next, bytes of each), from where the weights begin."""
    found = ahead_of(weight, most_bytes)
    assert found is not None and found.address == weight.data_ptr()
    return found[1:]


def test_the_first_bytes_of_every_row_are_asked_for_in_whole_lines() -> None:
    assert asked(matrix(25600, 5120), 8 << 20) == (25600, 10240, 2 * LINE)
    assert asked(matrix(5120, 5120), 8 << 20) == (5120, 10240, 12 * LINE)
    assert asked(matrix(100, 5120), 1) == (100, 10240, LINE), "a line of each at least"
    assert asked(matrix(4, 72), 1 << 20) == (4, 144, 144), "no more than there is"


def test_every_program_has_rows_to_ask_for() -> None:
    assert [Ahead(0, rows, 144, 128).programs(256) for rows in (1, 256, 257, 5120, 1 << 20)] == [1, 1, 2, 20, 96]


def test_a_matrix_may_lie_the_other_way_round_and_be_part_of_another() -> None:
    assert asked(matrix(64, 512, torch.int8).t(), 64 * LINE) == (64, 512, LINE)
    assert asked(matrix(64, 512)[:, :256], 1 << 20) == (64, 1024, 512)


@pytest.mark.parametrize(
    "weight",
    [
        matrix(8, 512).flatten(),
        matrix(0, 512),
        matrix(8, 512)[:, ::2],
        matrix(8, 513),
        matrix(8, 512).flatten()[1:].view(-1)[: 7 * 512].view(7, 512),
    ],
    ids=["one dimension", "no rows", "spread", "rows at odd addresses", "begins at an odd address"],
)
def test_what_the_instruction_cannot_ask_for_is_left_alone(weight: torch.Tensor) -> None:
    assert ahead_of(weight, 1 << 20) is None


def test_nothing_is_asked_for_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert bytes_ahead() == 0
    assert ahead_of(matrix(8, 512), 0) is None
    monkeypatch.setenv(VARIABLE, "4194304")
    assert bytes_ahead() == 4 << 20
    for text in ("", "-1", "4M", str(1 << 27), "²", "9" * 5000):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(RefusedError, match=VARIABLE):
            bytes_ahead()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_sums_have_the_bits_of_those_without_and_other_kernels_ask_for_nothing(world: int, tmp_path: Path) -> None:
    emulated_peers.make_buffers(tmp_path, world, 8, 64)
    for found in run_ranks(emulated_read_ahead.sums_beside, world, str(tmp_path), timeout_s=600):
        assert found == [True] * 25


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "programs", "threads"), [(1, 1, 4), (9, 2, 4), (8, 2, 4), (25, 3, 4)])
def test_the_beginning_of_every_row_is_asked_for_and_nothing_behind_it(
    rows: int, programs: int, threads: int, tmp_path: Path
) -> None:
    (asked,) = run_ranks(emulated_read_ahead.asked_for, 1, rows, programs, threads, timeout_s=300)
    begin, row_bytes, head_bytes = emulated_read_ahead.PLACE
    assert sorted(set(asked)) == [(begin + row * row_bytes, head_bytes) for row in range(rows)]
    assert len(asked) < rows + programs * threads


@pytest.mark.slow
def test_weights_on_another_device_are_left_alone() -> None:
    x, gain = torch.zeros(3, 1104, dtype=torch.bfloat16), torch.zeros(1104, dtype=torch.bfloat16)
    with hopper() as launches:
        peers = peers_of()
        peers._bytes_ahead = 1 << 20
        peers.read_ahead(matrix(4096, 1104).to("meta"))
        peers.all_reduce_norm(x, x.clone(), gain, EPS)
    assert launches[0][2][0] == 3


@pytest.mark.slow
def test_a_hopper_gpu_asks_before_it_waits_for_the_kernel_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from commplan.runtime.kernels import peer_kernels

    monkeypatch.setattr(peer_kernels, "dependence_on", lambda _: "early")
    x, gain = torch.zeros(3, 1104, dtype=torch.bfloat16), torch.zeros(1104, dtype=torch.bfloat16)
    weights, many = matrix(4096, 1104), torch.zeros(MOST_ROWS + 1, 1104, dtype=torch.bfloat16)
    with hopper() as launches:
        peers = peers_of()
        peers.read_ahead(weights)
        peers.all_reduce_norm(x, x.clone(), gain, EPS)
        peers._bytes_ahead = 1 << 20
        for rows in (x, many, x):
            peers.read_ahead(weights)
            peers.all_reduce_norm(rows, rows.clone(), gain, EPS)
        peers.all_reduce_norm(x, x.clone(), gain, EPS)
    sources, programs = [source for source, *_ in launches], [given[0] for *_, given in launches]
    assert programs == [3, 3 + 32, MOST_ROWS + 1, 3 + 32, 3], "of few rows, and once for each time it is said"
    assert weights.data_ptr() in launches[1][2] and weights.data_ptr() not in launches[4][2]
    with_, without = compiled_code(sources[1]), compiled_code(sources[0])
    assert sources[1].hash() == sources[3].hash() and sources[0].hash() == sources[4].hash()
    assert "cp.async.bulk.prefetch.L2.global" in with_ and "prefetch" not in without
    assert with_.index("cp.async.bulk.prefetch") < with_.index("griddepcontrol.wait") < with_.index("ld.global")
