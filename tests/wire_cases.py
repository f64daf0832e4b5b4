"""Inputs of quantised sums that every rank can make for all ranks, and how far off a sum may be; on GPUs and on CPUs.

The bounds follow the words of runtime/kernels/wire/layout.py, in float64, with none of its code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from commplan.planner.strategy.file import KINDS
from commplan.planner.strategy.wire import Wire

from .peer_cases import EPS, normed, rows_of

LARGEST = {"int8": 127, "int6": 31, "int4": 7, "int4_spikes": 7}
FORMATS = (
    ("int8", "token"),
    *((wire, group) for wire in ("int8", "int6", "int4", "fp8_e4m3") for group in ("32", "128")),
    ("int8", "256"),
    ("int4_spikes", "64"),
    ("int4_spikes", "256"),
)


def wire_of(name: str, group: str) -> Wire:
    """A format with so many columns to a scale."""
    kind = KINDS["int8_all_reduce"] if group == "token" else KINDS["quantized_all_reduce"]
    wire = kind.format_of(None if group == "token" else name, group)  # type: ignore[arg-type]
    assert wire is not None and wire.name == name
    return wire


class WireCase:
    """Partials of all ranks with rows of zeros, of very different sizes and of outliers; the float64 sums."""

    def __init__(
        self, ranks: tuple[int, int], rows: int, width: int, dtype: torch.dtype, seed: int, device: str = "cpu"
    ) -> None:
        self.rank, self.world, self.dtype = *ranks, dtype
        self.parts = [self._part(seed + r, rows, width, device) for r in range(self.world)]
        self.mine = self.parts[self.rank]
        self.residual = rows_of(seed + 90, rows, width, dtype, device=device)
        self.weight = rows_of(seed + 91, 1, width, dtype, device=device)[0]
        self.sum = torch.stack([part.double() for part in self.parts]).sum(0)

    def _part(self, seed: int, rows: int, width: int, device: str) -> Tensor:
        x = rows_of(seed, rows, width, torch.float32, "outliers", device)
        x[1::5] *= 1e-3
        x[2::7] = 0.0
        x[3::5] = x[3::5].round()  # equals, for whoever picks the largest
        return x.to(self.dtype)

    def allowed(self, wire: Wire, algorithm: str) -> Tensor:
        """How far each element of the sum may be from float64's."""
        off = torch.stack([spread(part.double(), wire) for part in self.parts]).sum(0)
        if algorithm == "two_shot":
            off = off + spread(self.sum, wire, off)
        rounding = torch.finfo(self.dtype).eps * (self.sum.abs() + off)
        return off + rounding + 1e-6 * torch.stack([part.double().abs() for part in self.parts]).sum(0) + 1e-29

    def excess(self, found: Tensor, wire: Wire, algorithm: str) -> float:
        """How much further than allowed a sum is off, of what is allowed; at most 1, and infinite of what is none."""
        if not bool(torch.isfinite(found).all()):
            return float("inf")
        return float(((found.double() - self.sum).abs() / self.allowed(wire, algorithm)).max()) if len(found) else 0.0

    def norm_error(self, found: tuple[Tensor, Tensor], summed: Tensor) -> float:
        """Relative error of (normed, total) behind a sum, in the type's epsilon."""
        total = (summed.double() + self.residual.double()).to(self.dtype)
        wanted = normed(total.double(), self.weight)
        off = (found[0].double() - wanted).abs().max() / wanted.abs().max() if len(total) else torch.zeros(1)
        unlike = float((found[1].double() - total.double()).abs().max()) if len(total) else 0.0
        return float("inf") if unlike else float(off / torch.finfo(self.dtype).eps)


def spread(x: Tensor, wire: Wire, off: Tensor | None = None) -> Tensor:
    """How far each element may be from x [R, H] after one trip; `off`: how far x itself may be off."""
    columns = wire.scales.columns or x.shape[1]
    groups = -(-x.shape[1] // columns)
    padded = torch.zeros(x.shape[0], groups * columns, dtype=torch.float64, device=x.device)
    padded[:, : x.shape[1]] = x.abs() if off is None else x.abs() + off
    tile = padded.view(x.shape[0], groups, columns)
    nth = 3 if wire.name == "int4_spikes" and off is None else 1
    largest = tile.topk(nth, dim=-1).values[..., -1:]
    largest = largest * (1.0 if columns == x.shape[1] and wire.scales.columns is None else 1 + 2.0**-7)
    if wire.name == "fp8_e4m3":
        step = tile / 16 + largest / 448 / 1024
    else:
        step = (largest / LARGEST[wire.name] / 2).expand_as(tile)
    if wire.name == "int4_spikes":
        step = step + tile / 256
    return (step * (1 + 1e-5)).reshape(x.shape[0], -1)[:, : x.shape[1]] + 2.0**-100


__all__ = ["EPS", "FORMATS", "WireCase", "spread", "wire_of"]
