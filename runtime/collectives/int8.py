"""INT8-compressed all-reduce, per token symmetric, accumulated in fp32.

gather    every rank gets every rank's values and scales and sums them: one quantisation
two_shot  rank i sums block i of the rows, quantises the sum, everybody gathers: two quantisations; all ranks hold the
          same bits, because the owner too uses the requantised values
"""

from __future__ import annotations

from torch import Tensor

from ..backends import Backend
from ..groups import Group
from .rows import pad_rows


def gather(x_TH: Tensor, group: Group, backend: Backend) -> Tensor:
    """[T, H] partials to their sum [T, H]."""
    values, scales = backend.quantize(x_TH)
    all_values = backend.all_gather(values, group)
    all_scales = backend.all_gather(scales, group)
    return backend.dequantize_sum(all_values, all_scales, group.size, x_TH.dtype)


def two_shot(x_TH: Tensor, group: Group, backend: Backend) -> Tensor:
    """[T, H] partials to their sum [T, H]; T is padded to the group inside."""
    tokens = x_TH.shape[0]
    rows = -(-tokens // group.size) * group.size
    values, scales = backend.quantize(x_TH)
    values = backend.all_to_all(pad_rows(values, rows), group)
    scales = backend.all_to_all(pad_rows(scales, rows), group)
    shard = backend.dequantize_sum(values, scales, group.size, x_TH.dtype)
    values, scales = backend.quantize(shard)
    values = backend.all_gather(values, group)
    scales = backend.all_gather(scales, group)
    return backend.dequantize(values[:tokens], scales[:tokens], x_TH.dtype)


ALGORITHMS = {"gather": gather, "two_shot": two_shot}
