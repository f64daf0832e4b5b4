"""What wire formats make of partial sums, in one process: the numbers of a quantised all-reduce without its ranks.

Every format that op records know, whether a kernel of this runtime sends it or not. The one place that says how.
Shapes: N ranks, T rows, H columns, G groups of C columns that share a scale.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from commplan.planner.strategy.file import Op

_LARGEST = {"int8": 127.0, "int6": 31.0, "int4": 7.0, "int4_spikes": 7.0, "fp8_e4m3": 448.0}
_SPIKES = 2  # of each group, kept in bf16 beside it
_TINY = torch.finfo(torch.float32).tiny


def sent(x_TH: Tensor, wire: str, group: str) -> Tensor:
    """fp32 rows as they are after a trip in a format; what is not finite spoils its group."""
    width = x_TH.shape[-1]
    columns = width if group == "token" else int(group)
    padded = pad(x_TH.float(), (0, -width % columns))
    x_TGC = padded.view(*padded.shape[:-1], -1, columns)
    if wire != "int4_spikes":
        return _rounded(x_TGC, wire).flatten(-2)[..., :width]
    kept = torch.zeros_like(x_TGC, dtype=torch.bool).scatter_(-1, x_TGC.abs().topk(_SPIKES, -1).indices, True)
    rest = _rounded(x_TGC.masked_fill(kept, 0.0), wire)
    return torch.where(kept, x_TGC.bfloat16().float(), rest).flatten(-2)[..., :width]


def _rounded(x_TGC: Tensor, wire: str) -> Tensor:
    scale = (x_TGC.abs().amax(-1, keepdim=True) / _LARGEST[wire]).clamp_min(_TINY)
    scaled = x_TGC / scale
    values = scaled.to(torch.float8_e4m3fn).float() if wire == "fp8_e4m3" else scaled.round()
    return values * scale


def quantised_sum(partials_NTH: Tensor, op: Op) -> Tensor:
    """The sum [T, H] that every rank has after a quantised all-reduce, in the type of the partials.

    Values are added in fp32, and what an owner sums is in the partials' type before it is quantised again.
    """
    wire, group, algorithm = format_of(op)
    summed = sent(partials_NTH, wire, group).sum(0).to(partials_NTH.dtype)
    return sent(summed, wire, group).to(summed.dtype) if algorithm == "two_shot" else summed


def format_of(op: Op) -> tuple[str, str, str]:
    """(wire, columns of a scale, algorithm) of a quantised sum."""
    assert op.wire is not None and op.algorithm is not None
    return op.wire.name, op.scale_group or "token", op.algorithm
