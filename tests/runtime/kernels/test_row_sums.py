"""The kernel that sums rows as they are, emulated and compiled: what the one-shot kernel makes, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from commplan.runtime.ranks.spawning import run_ranks

from . import emulated_row_sums as emulated
from .emulated_peers import make_buffers

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")
pytestmark = pytest.mark.slow


def test_it_makes_the_sums_of_plain_torch_and_norms_that_float64_allows(tmp_path: Path) -> None:
    make_buffers(tmp_path, 3, 1, 64)
    for found in run_ranks(emulated.beside_float64, 3, str(tmp_path)):
        assert tuple(found) == emulated.WIDTHS
        for width, (same, norm_error) in found.items():
            assert same, width
            assert norm_error <= 2.0, (width, norm_error)


@pytest.mark.parametrize(("ranks", "width"), [(2, 2080), (3, 208)])
def test_it_makes_what_one_shot_makes_to_the_bit(ranks: int, width: int, tmp_path: Path) -> None:
    make_buffers(tmp_path, ranks, 4, width)
    assert run_ranks(emulated.beside_one_shot, ranks, str(tmp_path), width) == [[True] * 2] * ranks


@pytest.mark.parametrize(("width", "dtype"), [(5120, torch.bfloat16), (1000, torch.float16), (97, torch.bfloat16)])
def test_it_compiles_for_a_hopper_gpu(width: int, dtype: torch.dtype) -> None:
    from .compiled_launches import hopper

    with hopper() as launches:
        from commplan.runtime.kernels.wire.row_sum_launch import RowSumKernels
        from commplan.runtime.kernels.wire.row_sums import GatheredRows

        sums, x = RowSumKernels(1), torch.zeros(2, width, dtype=dtype)
        rows = GatheredRows(x, torch.zeros(2, 2, width, dtype=dtype))
        sums.sum(rows, x)
        sums.sum_norm(rows, x, x[0], 1e-6, x, x)
        sums.sum_norm(rows, None, x[0], 1e-6, x, x)
        names = [metadata.name for _, metadata, _ in launches]
    assert names == ["row_sum_kernel"] * 3
