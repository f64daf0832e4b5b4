"""What the kernel in one shot does through host memory, for ranks without a GPU: rows gathered, and summed by torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.custom_ops import forget, normed_rows, register, rows
from ..kernels.rms_norm import rms_norm
from ..ranks.groups import Group
from .host_staging import HostStaging


class PlainOneShot:
    """Sums in fp32 and in the order of ranks. Methods as of PeerKernels; there is one algorithm."""

    def __init__(self, group: Group, staging: HostStaging) -> None:
        self._group, self._staging = group, staging
        self._handle = register(self)

    @classmethod
    def make(cls, group: Group, device: torch.device, message_bytes: int) -> PlainOneShot:
        """For messages of up to so many bytes of a rank. Every rank of the group must call this."""
        return cls(group, HostStaging.make(group, device, message_bytes))

    @property
    def looks(self) -> int:
        """How often a rank looks for its peers before it gives up."""
        return self._staging.looks

    @looks.setter
    def looks(self, looks: int) -> None:
        """Of the calls from now on."""
        self._staging.looks = looks

    def all_reduce(self, x_TH: Tensor, algorithm: str | None = None) -> Tensor:  # noqa: ARG002
        """[T, H] to the sum [T, H]."""
        if torch.compiler.is_compiling():
            out: Tensor = rows(x_TH, self._handle, "")
            return out
        return self.rows_now("", x_TH)

    def all_reduce_norm(
        self,
        x_TH: Tensor,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        algorithm: str | None = None,  # noqa: ARG002
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(norm of sum + residual, sum + residual), both [T, H]."""
        if torch.compiler.is_compiling():
            found: tuple[Tensor, Tensor] = normed_rows(x_TH, residual_TH, weight_H, eps, self._handle, "")
            return found
        return self.normed_rows_now("", x_TH, residual_TH, weight_H, eps, overwrite)

    def check(self) -> None:
        """Raises BoundaryError if this rank has given up waiting for a peer."""
        self._staging.check()

    def close(self) -> None:
        """Give the memory back."""
        forget(self._handle)
        self._staging.close()

    # ---- as custom ops have it --------------------------------------------------------------------------------------

    def rows_out(self, op: str, rows: int) -> int:  # noqa: ARG002
        """Rows that come out."""
        return rows

    def rows_now(self, op: str, x: Tensor) -> Tensor:  # noqa: ARG002
        """As `all_reduce`."""
        if not x.shape[0]:
            return torch.empty_like(x)
        got = x.new_empty(self._group.size, *x.shape)
        mine = got[self._group.rank].copy_(x)
        self._staging.begin()
        try:
            self._staging.start_all_gather(got.flatten(0, 1), mine, self._group).wait()
        finally:
            self._staging.end()
        total = got[0].float()
        for each in got[1:]:
            total += each
        return total.to(x.dtype)

    def normed_rows_now(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As `all_reduce_norm`."""
        total = self.rows_now(op, x)
        if residual is not None:
            total = residual.add_(total) if overwrite else residual + total
        return rms_norm(total, weight, eps), total


__all__ = ["PlainOneShot"]
