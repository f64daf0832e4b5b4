"""Sums of rows that travel as they are, in plain torch: what the kernel beside this computes, on any device.

Nobody copies a rank's own rows: they are read where they were.

Shapes: R rows, H width, N ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .plain import store_normed


class GatheredRows(NamedTuple):
    """Rows of all ranks: this rank's own [R, H], and those received [N, R, H], where its place may hold anything."""

    mine: Tensor
    got: Tensor


class RowSums:
    """In fp32 and in the order of ranks, rounded once. Methods as those of `WireRows`."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def sum(self, rows: GatheredRows, out_RH: Tensor) -> None:
        """Rows of all ranks to their sums."""
        out_RH.copy_(self._summed(rows))

    def sum_norm(
        self,
        rows: GatheredRows,
        residual_RH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        out_RH: Tensor,
        total_RH: Tensor,
    ) -> None:
        """Rows to (RMSNorm of sum + residual, sum + residual); `total` may be the residual's memory."""
        store_normed(self._summed(rows).to(out_RH.dtype), residual_RH, weight_H, eps, out_RH, total_RH)

    def _summed(self, rows: GatheredRows) -> Tensor:
        parts = [rows.mine if rank == self.rank else got for rank, got in enumerate(rows.got)]
        summed = parts[0].to(torch.float32)
        for part in parts[1:]:
            summed = summed + part.to(torch.float32)
        return summed


__all__ = ["GatheredRows", "RowSums"]
