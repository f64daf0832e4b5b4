"""Moving rows without a wire: pad, slice, place."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def pad_rows(x_RH: Tensor, rows: int) -> Tensor:
    """[R, H] to [rows, H] with zero rows at the end; as it is where R == rows."""
    missing = rows - x_RH.shape[0]
    if torch.compiler.is_compiling():
        return F.pad(x_RH, (0, 0, 0, missing))
    if missing == 0:
        return x_RH
    out = x_RH.new_empty(rows, *x_RH.shape[1:])  # F.pad would fill all of it with zeros first
    out[: x_RH.shape[0]] = x_RH
    out[x_RH.shape[0] :] = 0
    return out


def slice_rows(x_RH: Tensor, start: int, rows: int) -> Tensor:
    """Rows [start, start + rows) of [R, H]; what lies beyond R is zero."""
    return pad_rows(x_RH[start : start + rows], rows)


def add_rows(x_RH: Tensor, start: int, rows_SH: Tensor) -> Tensor:
    """[R, H] with [S, H] added at `start`; rows of the shard beyond R are padding and left out. In place."""
    part = x_RH[start : start + rows_SH.shape[0]]
    part.add_(rows_SH[: part.shape[0]])
    return x_RH
