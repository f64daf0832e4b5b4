"""One INT8 sum: its error against float64, element by element and in the mean, and what is not a number.

Per token symmetric: scale_r = max|row| / 127 on rank r, so an element is off by at most the sum of scale_r / 2.
Two-shot quantises the sum once more, with the scale of the summed row.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from ..world import RankWorld
from .int8_sums import Sample, normal_sample, samples, special_rows

SHAPES = [(0, 8), (1, 1), (1, 64), (2, 5), (3, 257), (7, 64), (16, 33), (17, 512)]
ALGORITHMS = ("gather", "two_shot")
RANKS = (2, 4)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("ranks", RANKS),
    pytest.mark.parametrize("algorithm", ALGORITHMS),
]
Worlds = Callable[[int], RankWorld]


def scales(rows: torch.Tensor) -> torch.Tensor:
    """[.., tokens, width] to [.., tokens, 1]."""
    return rows.abs().amax(-1, keepdim=True) / 127 if rows.numel() else rows[..., :1]


def quantized(rows: torch.Tensor) -> torch.Tensor:
    """Rows as INT8 would carry them."""
    scale = scales(rows)
    return torch.where(scale > 0, (rows / scale).round() * scale, 0.0)


def reference(sample: Sample, algorithm: str) -> torch.Tensor:
    total = quantized(sample.partials).sum(0)
    return total if algorithm == "gather" else quantized(total)


def steps(sample: Sample, algorithm: str) -> list[torch.Tensor]:
    """The quantisation steps that add up in each row."""
    found = list(scales(sample.partials))
    return found if algorithm == "gather" else [*found, scales(quantized(sample.partials).sum(0))]


def rounding(sample: Sample, algorithm: str, dtype: torch.dtype) -> torch.Tensor:
    """What the arithmetic may add: two roundings to `dtype` (two-shot's shard and the result), and float32 sums."""
    halves = sum(step / 2 for step in steps(sample, algorithm))
    sums = sample.partials.sum(0).abs() + halves
    return torch.finfo(dtype).eps * (sums + halves) + 2e-6 * sample.partials.abs().sum(0).amax(-1, keepdim=True)


@pytest.mark.parametrize("transposed", [False, True], ids=["contiguous", "transposed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_every_element_is_within_half_a_step_of_each_quantisation(
    ranks: int, algorithm: str, dtype: torch.dtype, transposed: bool, world: Worlds
) -> None:
    by_rank = world(ranks).run(_samples, ranks, algorithm, dtype, transposed)
    for shape, sample in zip(SHAPES, by_rank[0], strict=True):
        assert sample.got.shape == shape
        if shape[0] == 0:
            continue
        error = (sample.got - sample.partials.sum(0)).abs()
        bound = sum(step / 2 for step in steps(sample, algorithm)) + rounding(sample, algorithm, dtype)
        assert (error <= bound).all(), (shape, (error / bound).max())


def _samples(ranks: int, algorithm: str, dtype: torch.dtype, transposed: bool) -> list[Sample]:
    return samples(ranks, algorithm, SHAPES, dtype, transposed=transposed)


def test_the_mean_error_is_that_of_uniform_rounding(ranks: int, algorithm: str, world: Worlds) -> None:
    sample = world(ranks).run(normal_sample, ranks, algorithm)[0]
    error = sample.got - sample.partials.sum(0)
    expected = torch.stack([step**2 / 12 for step in steps(sample, algorithm)]).sum(0)
    assert math.sqrt(error.square().mean()) == pytest.approx(math.sqrt(expected.mean()), rel=0.1)


def test_it_computes_what_a_reference_in_float64_computes(ranks: int, algorithm: str, world: Worlds) -> None:
    """Up to single rounding decisions that float32 takes the other way: then one step."""
    for sample in world(ranks).run(_samples, ranks, algorithm, torch.float32, False)[0][1:]:
        difference = (sample.got - reference(sample, algorithm)).abs()
        step = torch.stack(steps(sample, algorithm)).amax(0)
        assert (difference <= 1.01 * step + rounding(sample, algorithm, torch.float32)).all()
        assert (difference > rounding(sample, algorithm, torch.float32)).sum() <= 0.002 * difference.numel() + 1


def test_all_ranks_hold_the_same_bits(ranks: int, algorithm: str, world: Worlds) -> None:
    by_rank = world(ranks).run(_samples, ranks, algorithm, torch.bfloat16, False)
    for of_ranks in zip(*by_rank, strict=True):
        assert all(torch.equal(sample.got, of_ranks[0].got) for sample in of_ranks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_comes_out_finite(
    ranks: int, algorithm: str, value: float, dtype: torch.dtype, world: Worlds
) -> None:
    for partials, got in world(ranks).run(special_rows, ranks, algorithm, value, dtype):
        assert not got[1].isfinite().any(), "a row shares its scale, so all of it is lost"
        others = [0, 2, 3, 4]
        assert torch.allclose(got[others].float(), partials.float().sum(0)[others], atol=0.2)


def test_zero_rows_stay_zero(ranks: int, algorithm: str, world: Worlds) -> None:
    for _, got in world(ranks).run(special_rows, ranks, algorithm, 1.0, torch.float32):
        assert (got[3] == 0).all()
        assert (got[[0, 1, 2, 4]] != 0).any(-1).all()
