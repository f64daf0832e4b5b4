"""RMSNorm in plain torch: what kernels and models are held against.

Shapes: R rows, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x_RH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """[R, H] to [R, H] as transformers writes it: fp32 statistics, the normed row rounded before the weight."""
    wide = x_RH.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight_H * wide.to(x_RH.dtype)
