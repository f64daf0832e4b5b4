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


def test_the_first_bytes_of_every_row_are_asked_for_in_whole_lines() -> None:
    assert ahead_of(matrix(25600, 5120), 8 << 20) == Ahead(25600, 10240, 256, 96)
    assert ahead_of(matrix(5120, 5120), 8 << 20) == Ahead(5120, 10240, 12 * LINE, 40)
    assert ahead_of(matrix(100, 5120), 1) == Ahead(100, 10240, LINE, 1), "a line of each at least"
    assert ahead_of(matrix(4, 72), 1 << 20) == Ahead(4, 144, 144, 1), "no more than there is"


def test_a_matrix_may_lie_the_other_way_round_and_be_part_of_another() -> None:
    assert ahead_of(matrix(64, 512, torch.int8).t(), 64 * LINE) == Ahead(64, 512, LINE, 1)
    assert ahead_of(matrix(64, 512)[:, :256], 1 << 20) == Ahead(64, 1024, 512, 1)


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
    for text in ("", "-1", "4M", str(1 << 27), "²"):
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
def test_a_hopper_gpu_asks_before_it_waits_for_the_kernel_before() -> None:
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
    assert with_.index("cp.async.bulk.prefetch") < with_.index("ld.global")
