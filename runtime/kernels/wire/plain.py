"""Records of composed sums in plain torch: what the kernels beside this compute, on any device.

The same bits, but for the sums of squares of a norm. It runs at the speed of some dozen small kernels.

Shapes: R rows, H width, N copies, B bytes of a record, G groups, C columns of a group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..rms_norm import rms_norm
from .layout import RowLayout

_LEAST = 2.0**-100
_NAN = float("nan")


class WireRows:
    """Rows and records of one layout in plain torch; methods as those of `WireKernels`."""

    def __init__(self, layout: RowLayout) -> None:
        self.layout = layout

    def quantize(self, x_RH: Tensor, out_RB: Tensor) -> None:
        """Rows to records; records beyond the rows are of zeros."""
        self._store(F.pad(x_RH.to(torch.float32), (0, 0, 0, out_RB.shape[0] - x_RH.shape[0])), out_RB)

    def reduce(self, got_NRB: Tensor, out_RB: Tensor) -> None:
        """Records of every rank to records of their sums in fp32."""
        self._store(self._sum_of_copies(got_NRB), out_RB)

    def sum(self, got_NRB: Tensor, out_RH: Tensor) -> None:
        """Records to the rows of their sums; rows of `out` may be fewer than records."""
        out_RH.copy_(self._sum_of_copies(got_NRB[:, : out_RH.shape[0]]))

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
        summed = self._sum_of_copies(got_NRB[:, : out_RH.shape[0]]).to(out_RH.dtype)
        store_normed(summed, residual_RH, weight_H, eps, out_RH, total_RH)

    def _sum_of_copies(self, got_NRB: Tensor) -> Tensor:
        summed = self._load(got_NRB[0])
        for copy in got_NRB[1:]:  # one behind the other, in the order of ranks: the order of a sum changes its bits
            summed = summed + self._load(copy)
        return summed

    # ---- rows to records --------------------------------------------------------------------------------------------

    def _store(self, x_RH: Tensor, out_RB: Tensor) -> None:
        at = self.layout
        x_RGC = F.pad(x_RH, (0, at.padded - at.width)).view(len(x_RH), at.groups, at.columns)
        first, second, rest = _without_spikes(x_RGC) if at.keeps_spikes else (None, None, x_RGC)
        scale_RG, inverse_RG = self._scales(rest, None if first is None else first[0])
        parts = self._packed((rest * inverse_RG.unsqueeze(-1)).flatten(1))
        if at.group == "token":
            parts.append(scale_RG.view(torch.int8))
        elif first is None or second is None:
            parts.append(scale_RG.to(torch.bfloat16).view(torch.int8))
        else:
            parts.append(_beside_spikes(scale_RG, first, second).flatten(1))
        whole = torch.cat(parts, 1)
        out_RB[:, : whole.shape[1]] = whole
        out_RB[:, whole.shape[1] :] = 0

    def _scales(self, rest_RGC: Tensor, spike_RG: Tensor | None) -> tuple[Tensor, Tensor]:
        """(scales as they travel, what to multiply values by), both [R, G]; NaN and 0 of a group that is not finite."""
        largest = rest_RGC.abs().amax(-1)
        finite = rest_RGC.isfinite().all(-1)
        if spike_RG is not None:
            finite &= spike_RG.isfinite()
        usual = finite & (largest >= _LEAST)
        part = torch.tensor(1.0 / self.layout.largest, dtype=torch.float32, device=largest.device)
        scale = torch.where(usual, largest, _LEAST) * part
        if self.layout.group != "token":  # up to the next bf16, so that no value exceeds the largest there is
            scale = ((scale.view(torch.int32) + 0xFFFF) & -0x10000).view(torch.float32)
        inverse = torch.where(usual, 1.0 / scale, 0.0)
        return torch.where(usual, scale, torch.where(finite, 0.0, _NAN)), inverse

    def _packed(self, scaled_RP: Tensor) -> list[Tensor]:
        """Planes of bytes [R, ...] of values that have been scaled."""
        wire = self.layout.wire
        scaled = scaled_RP.nan_to_num(nan=0.0)
        if wire == "fp8_e4m3":
            return [scaled.to(torch.float8_e4m3fn).view(torch.int8)]
        whole = scaled.round().to(torch.int32)
        if wire == "int8":
            return [whole.to(torch.int8)]
        low = _bytes((whole[:, 0::2] & 15) | ((whole[:, 1::2] & 15) << 4))
        if wire != "int6":
            return [low]
        top = (whole >> 4) & 3
        return [low, _bytes(top[:, 0::4] | (top[:, 1::4] << 2) | (top[:, 2::4] << 4) | (top[:, 3::4] << 6))]

    # ---- records to rows --------------------------------------------------------------------------------------------

    def _load(self, record_RB: Tensor) -> Tensor:
        """[R, B] to rows [R, H] in fp32."""
        at = self.layout
        whole_RGC = self._unpacked(record_RB[:, : at.scales_at]).view(len(record_RB), at.groups, at.columns)
        beside = record_RB[:, at.scales_at : at.scales_at + at.groups * at.group_bytes].contiguous()
        beside = beside.view(beside.shape[0], at.groups, at.group_bytes)
        if at.group == "token":
            return (whole_RGC * beside.view(torch.float32)).flatten(1)[:, : at.width]
        row_RGC = whole_RGC * beside[..., :2].contiguous().view(torch.bfloat16).to(torch.float32)
        if at.keeps_spikes:
            kept = beside[..., 2:6].contiguous().view(torch.bfloat16).to(torch.float32)
            columns = (beside[..., 6:8].to(torch.int64) & 0xFF).clamp(max=at.columns - 1)  # a spoiled one has any byte
            row_RGC = row_RGC + torch.zeros_like(row_RGC).scatter_(-1, columns, kept)
        return row_RGC.flatten(1)[:, : at.width]

    def _unpacked(self, planes_RB: Tensor) -> Tensor:
        """Bytes of values to those in fp32 [R, padded]."""
        wire, padded = self.layout.wire, self.layout.padded
        if wire == "fp8_e4m3":
            return planes_RB[:, :padded].contiguous().view(torch.float8_e4m3fn).to(torch.float32)
        if wire == "int8":
            return planes_RB[:, :padded].to(torch.float32)
        low = planes_RB[:, : padded // 2].to(torch.int32)
        whole = torch.stack((low & 15, (low >> 4) & 15), -1).flatten(1)
        bits = 4
        if wire == "int6":
            top = planes_RB[:, padded // 2 : padded * 3 // 4].to(torch.int32)
            whole = whole | (torch.stack([(top >> shift) & 3 for shift in (0, 2, 4, 6)], -1).flatten(1) << 4)
            bits = 6
        return ((whole << (32 - bits)) >> (32 - bits)).to(torch.float32)


def store_normed(
    summed_RH: Tensor, residual_RH: Tensor | None, weight_H: Tensor, eps: float, out_RH: Tensor, total_RH: Tensor
) -> None:
    """What follows a sum that has been rounded: its total with the residual, and the RMSNorm of that."""
    total_RH.copy_(summed_RH if residual_RH is None else summed_RH + residual_RH)
    out_RH.copy_(rms_norm(total_RH, weight_H, eps))


def _bytes(low: Tensor) -> Tensor:
    """The low bytes of int32; a conversion of what int8 has not is nobody's promise."""
    return torch.where(low > 127, low - 256, low).to(torch.int8)


def _without_spikes(x_RGC: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """((value, column) of the largest of each group, of the one after it, x with zeros in their places).

    Largest in bf16; of equals a negative one comes first, then the first column.
    """
    small = x_RGC.to(torch.bfloat16)
    bits = small.view(torch.int16).to(torch.int32) & 0xFFFF
    columns = torch.arange(x_RGC.shape[-1], device=x_RGC.device, dtype=torch.int32)
    keys = ((bits & 0x7FFF) << 9) | ((bits >> 15) << 8) | (255 - columns)
    places = keys.topk(2, dim=-1).indices
    found = small.to(torch.float32).gather(-1, places)
    rest = x_RGC.scatter(-1, places, 0.0)
    first, second = ((found[..., n], places[..., n]) for n in range(2))
    return first, second, rest


def _beside_spikes(scale_RG: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """[R, G, 8] bytes: scale, both values, both columns."""
    small = torch.stack((scale_RG, first[0], second[0]), -1).to(torch.bfloat16).view(torch.int8)
    return torch.cat((small, _bytes(torch.stack((first[1], second[1]), -1).to(torch.int32))), -1)
