"""Quantised sums around HCCL: what reaches torch_npu's kernels and the library, in every format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from commplan.planner.strategy.file import Parallelism
from commplan.runtime.backends.hccl import HcclBackend
from commplan.runtime.collectives.wire_sums import WireSum

from ..wire_cases import FORMATS, wire_of
from .fake_npu import Call, fake_npu, traffic
from .fake_world import FakeWorld

RANKS, ROWS, WIDTH = 4, 10, 512
SHARD = -(-ROWS // RANKS)


@pytest.fixture
def group() -> Iterator[Any]:
    with FakeWorld() as world:
        yield world(Parallelism(RANKS), 1).tp


def calls_of(group: Any, wire: str, scales: str, algorithm: str, pieces: int) -> tuple[list[Call], int]:
    """(what one sum with its norm calls, bytes of a record)."""
    summing = WireSum(HcclBackend(), group, wire_of(wire, scales), WIDTH, algorithm, pieces)
    with fake_npu(), traffic() as calls:
        x = torch.empty(ROWS, WIDTH, dtype=torch.bfloat16, device="npu")
        for found in (*summing.sum_norm(x, torch.empty_like(x), x[0], 1e-6), summing.sum(x)):
            assert (found.device.type, tuple(found.shape), found.dtype) == ("npu", (ROWS, WIDTH), torch.bfloat16)
    return calls, summing.layout.row_bytes


@pytest.mark.parametrize(("wire", "scales"), FORMATS)
def test_a_gather_sends_one_message_of_bytes_and_norms_by_one_kernel(group: Any, wire: str, scales: str) -> None:
    calls, record = calls_of(group, wire, scales, "gather", 1)
    ranks = tuple(range(RANKS))
    quantised = [Call("npu_dynamic_quant", (ROWS, WIDTH), (ROWS, WIDTH), torch.int8)] * (scales == "token")
    sent = Call("_allgather_base_", (ROWS, record), (RANKS * ROWS, record), torch.int8, ranks)
    normed = Call("npu_add_rms_norm", (ROWS, WIDTH), (ROWS, WIDTH), torch.bfloat16)
    assert calls == [*quantised, sent, normed, *quantised, sent]


def test_pieces_of_two_shots_are_sent_before_the_first_is_summed(group: Any) -> None:
    calls, record = calls_of(group, "int6", "128", "two_shot", 2)
    ranks = tuple(range(RANKS))
    there = [Call("alltoall_base_", (n, record), (n, record), torch.int8, ranks) for n in (4, 8)]
    back = [Call("_allgather_base_", (n // RANKS, record), (n, record), torch.int8, ranks) for n in (4, 8)]
    norms = [Call("npu_add_rms_norm", (n, WIDTH), (n, WIDTH), torch.bfloat16) for n in (4, 6)]
    assert calls == [*there, *back, *norms, *there, *back]
