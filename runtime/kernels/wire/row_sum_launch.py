"""The kernel of sums of rows that travel as they are, as it is launched.

Shapes: R rows, H width, N ranks.
"""

from __future__ import annotations

from torch import Tensor

from ..row_launch import Tuning, cut_of, launch_options
from .row_sum_kernel import row_sum_kernel
from .row_sums import GatheredRows, RowSums


class RowSumKernels(RowSums):
    """The same by a Triton kernel, one launch each: the same bits, but for sums of squares of a norm."""

    def sum(self, rows: GatheredRows, out_RH: Tensor) -> None:
        """Rows of all ranks to their sums."""
        self._launch(rows, None, None, 0.0, out_RH, None)

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
        self._launch(rows, residual_RH, weight_H, eps, out_RH, total_RH)

    def _launch(
        self,
        rows: GatheredRows,
        residual: Tensor | None,
        weight: Tensor | None,
        eps: float,
        out: Tensor,
        total: Tensor | None,
    ) -> None:
        programs, width = out.shape
        if not programs:
            return
        cut = cut_of(width, False, False, Tuning())
        row_sum_kernel[(programs,)](
            rows.mine,
            rows.got,
            out if residual is None else residual,
            out if weight is None else weight,
            out,
            out if total is None else total,
            programs,
            width,
            eps,
            RANK=self.rank,
            WORLD=rows.got.shape[0],
            PARTS=cut.parts,
            NORM=weight is not None,
            RESIDUAL=residual is not None,
            **launch_options(cut.warps, None, "off"),
        )


__all__ = ["RowSumKernels"]
