"""The kernels of a composed sum as they are launched: rows and records of one layout.

Shapes: R rows, H width, N copies, B bytes of a record.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .layout import RowLayout
from .plain import WireRows
from .records import quantize_kernel, reduce_kernel, sum_kernel


class WireKernels(WireRows):
    """The same by Triton kernels, one launch each: the same bits, but for sums of squares of a norm."""

    def __init__(self, layout: RowLayout) -> None:
        super().__init__(layout)
        self._options = {
            "LAYOUT": layout,
            "num_warps": min(16, max(1, layout.tile_groups * layout.tile_columns // 1024)),
            # Every rank compiles its own; a product fused into a sum on one and not on another would differ.
            "enable_fp_fusion": False,
        }

    def quantize(self, x_RH: Tensor, out_RB: Tensor) -> None:
        """Rows to records; records beyond the rows are of zeros."""
        self._launch(quantize_kernel, out_RB.shape[0], x_RH, out_RB, x_RH.shape[0])

    def reduce(self, got_NRB: Tensor, out_RB: Tensor) -> None:
        """Records of every rank to records of their sums in fp32."""
        copies, rows = got_NRB.shape[0], got_NRB.shape[1]
        self._launch(reduce_kernel, rows, got_NRB, out_RB, rows, COPIES=copies)

    def sum(self, got_NRB: Tensor, out_RH: Tensor) -> None:
        """Records to the rows of their sums; rows of `out` may be fewer than records."""
        self._sum(got_NRB, None, None, 0.0, out_RH, None)

    def sum_norm(
        self,
        got_NRB: Tensor,
        residual_RH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        out_RH: Tensor,
        total_RH: Tensor,
    ) -> None:
        """Records to (RMSNorm of sum + residual, sum + residual); `total` may be the residual's memory."""
        self._sum(got_NRB, residual_RH, weight_H, eps, out_RH, total_RH)

    def _sum(
        self,
        got: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        eps: float,
        out: Tensor,
        total: Tensor | None,
    ) -> None:
        arrays = (got, out if residual is None else residual, out if weight is None else weight, out)
        self._launch(
            sum_kernel,
            out.shape[0],
            *arrays,
            out if total is None else total,
            got.shape[1],
            eps,
            COPIES=got.shape[0],
            NORM=weight is not None,
            RESIDUAL=residual is not None,
        )

    def _launch(self, kernel: Any, programs: int, *given: Any, **flags: Any) -> None:
        if programs:
            kernel[(programs,)](*given, **flags, **self._options)
