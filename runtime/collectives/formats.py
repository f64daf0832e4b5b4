"""Wire formats as tensors: rows to values and scales, and back. One class each; `FORMATS` is all that there are.

A format of which nobody says how it is quantised here cannot be run: plans with it are refused at start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..backends import Backend


class Format(ABC):
    """How rows travel in one wire format. Values are of a type that libraries carry, scales are fp32.

    What is not finite in a row must spoil the row: nothing finite may come out of it.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @abstractmethod
    def quantize(self, x_RH: Tensor) -> tuple[Tensor, Tensor]:
        """[R, H] to values and scales of R rows each."""

    @abstractmethod
    def dequantize(self, values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """Values and scales to [R, H]."""

    def dequantize_sum(self, values: Tensor, scales: Tensor, copies: int, dtype: torch.dtype) -> Tensor:
        """Values and scales of [copies * R, H] to the sum of the copies [R, H], accumulated in fp32."""
        parts = self.dequantize(values, scales, torch.float32)
        return parts.view(copies, parts.shape[0] // copies, -1).sum(0).to(dtype)


class Int8(Format):
    """Per token, symmetric: by the backend's kernels."""

    def quantize(self, x_RH: Tensor) -> tuple[Tensor, Tensor]:
        """As the backend does."""
        return self.backend.quantize(x_RH)

    def dequantize(self, values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """As the backend does."""
        return self.backend.dequantize(values, scales, dtype)

    def dequantize_sum(self, values: Tensor, scales: Tensor, copies: int, dtype: torch.dtype) -> Tensor:
        """As the backend does."""
        return self.backend.dequantize_sum(values, scales, copies, dtype)


FORMATS: dict[str, type[Format]] = {"int8": Int8}
"""By the names of their records."""
