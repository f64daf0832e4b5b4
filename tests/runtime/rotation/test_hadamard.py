"""Rotations are orthogonal, mix every column of a block with equal weight, and can be undone."""

from __future__ import annotations

import pytest
import torch

from commplan.runtime.errors import RefusedError
from commplan.runtime.rotation.hadamard import Rotation, blocks_of, hadamard

# Hidden sizes of Qwen2/3, Llama, DeepSeek-V2/V3, GLM, MiniMax, gpt-oss and SmolLM2.
WIDTHS = (576, 896, 1024, 1536, 2048, 2560, 2880, 3072, 3584, 4096, 5120, 6144, 7168, 8192)


@pytest.mark.parametrize("width", [2, 4, 12, 20, 28, 36, 64, 576, 1152])
def test_a_hadamard_matrix_is_orthogonal_and_all_its_entries_are_of_one_size(width: int) -> None:
    made = hadamard(width)
    assert made is not None
    torch.testing.assert_close(made @ made.T, torch.eye(width, dtype=torch.float64))
    torch.testing.assert_close(made.abs(), torch.full_like(made, width**-0.5))


@pytest.mark.parametrize("width", WIDTHS)
def test_whole_rows_of_every_usual_hidden_size_can_be_mixed(width: int) -> None:
    rotation = Rotation(width, width)
    one = torch.zeros(1, width)
    one[0, 3] = 1.0
    torch.testing.assert_close(rotation.apply(one).abs(), torch.full((1, width), width**-0.5, dtype=torch.float64))


def test_none_is_made_up_where_there_is_none() -> None:
    assert [hadamard(width) for width in (0, 3, 6, 18, 92)] == [None] * 5


@pytest.mark.parametrize(("width", "block"), [(576, 64), (576, 576), (64, 2), (24, 24)])
def test_what_is_rotated_can_be_rotated_back_and_keeps_its_length(width: int, block: int) -> None:
    rotation = Rotation(width, block, seed=5)
    rows = torch.randn(7, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = rotation.apply(rows)
    torch.testing.assert_close(rotation.undo(turned), rows)
    torch.testing.assert_close(turned.norm(dim=1), rows.norm(dim=1))


def test_a_block_mixes_its_own_columns_alone() -> None:
    rows = torch.zeros(1, 128)
    rows[0, 70] = 8.0
    turned = Rotation(128, 64).apply(rows)[0]
    assert not turned[:64].any()
    torch.testing.assert_close(turned[64:].abs(), torch.ones(64, dtype=torch.float64))


def test_signs_come_from_the_seed_and_no_seed_means_none() -> None:
    row = torch.ones(1, 64)
    assert torch.equal(Rotation(64, 64, 1).apply(row), Rotation(64, 64, 1).apply(row))
    assert not torch.equal(Rotation(64, 64, 1).apply(row), Rotation(64, 64, 2).apply(row))
    assert Rotation(64, 64, None).apply(row)[0].count_nonzero() == 1


@pytest.mark.parametrize("block", [0, 1, 3, 48, 128])
def test_a_block_that_does_not_fit_is_refused_with_those_that_do(block: int) -> None:
    with pytest.raises(RefusedError, match=r"divides hidden_size 576 is expected: 2, 4, 8, 16, 32, 64, or full"):
        Rotation(576, block)


def test_blocks_are_the_powers_of_two_that_divide_a_width() -> None:
    assert blocks_of(96) == [2, 4, 8, 16, 32]
    assert blocks_of(27) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_weight_is_folded_along_the_axis_that_meets_the_stream(axis: int) -> None:
    shape = [3, 5, 7]
    shape[axis] = 12
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    norm = torch.rand(12) + 0.5
    rotation = Rotation(12, 4)
    turned = rotation.apply(torch.eye(12))
    expected = torch.tensordot(weight.double().movedim(axis, -1) * norm.double(), turned, dims=1).movedim(-1, axis)
    found = rotation.fold(weight, axis, norm)
    assert found.dtype == torch.float32 and found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
