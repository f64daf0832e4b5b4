"""Quantised sums around NCCL, over as many GPUs as there are: right, and the same on all ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from commplan.runtime.ranks.spawning import run_ranks

from ..wire_cases import FORMATS
from . import wire_ranks

pytestmark = pytest.mark.slow


def run(function: Any, *args: Any) -> list[Any]:
    return run_ranks(function, torch.cuda.device_count(), *args, timeout_s=300)


@pytest.mark.two_gpus
@pytest.mark.parametrize(("algorithm", "dtype"), [("gather", "bf16"), ("two_shot", "fp16")])
def test_every_format_is_as_close_to_float64_as_its_steps_and_alike_on_all_ranks(algorithm: str, dtype: str) -> None:
    for found in run(wire_ranks.sums, algorithm, dtype):
        assert len(found) == 2 * len(FORMATS)
        for name, (excess, norm_error, same) in found.items():
            assert excess <= 1.0, (name, excess)
            assert norm_error <= 2.0, (name, norm_error)
            assert same, name


def test_kernels_make_the_bits_that_plain_torch_makes_on_the_host() -> None:
    found = wire_ranks.bits()
    assert found == dict.fromkeys(found, True)
    assert len(found) == len(FORMATS)


@pytest.mark.two_gpus
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_spoils_its_group_and_no_other(value: float) -> None:
    for found in run(wire_ranks.not_finite, value):
        assert found == dict.fromkeys(found, True)


@pytest.mark.two_gpus
def test_graphs_of_sums_in_pieces_replay() -> None:
    assert run(wire_ranks.graphs, 20) == [0] * torch.cuda.device_count()
