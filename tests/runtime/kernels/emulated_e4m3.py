"""FP8's rounding in Triton's interpreter beside PyTorch's; imported by a process that has asked for the interpreter."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from commplan.runtime.kernels.wire.encode import e4m3_of, round_to_e4m3

_COUNT = 4096


@triton.jit
def _both(x, rounded, bits, COUNT: tl.constexpr):
    columns = tl.arange(0, COUNT)
    value = tl.load(x + columns)
    tl.store(rounded + columns, round_to_e4m3(value))
    tl.store(bits + columns, e4m3_of(value).to(tl.int8))


def rounding(seed: int) -> tuple[bool, bool, bool]:
    """(values are PyTorch's, and none is -0.0; bits are PyTorch's; NaN stays NaN), of every size, ties among them."""
    generator = torch.Generator().manual_seed(seed)
    exact = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8).view(torch.float8_e4m3fn).float()
    exact = exact[exact.isfinite()].sort().values
    ties = (exact[1:] + exact[:-1]) / 2
    sizes = torch.exp2(torch.randint(-14, 9, (_COUNT,), generator=generator).float())
    x = torch.randn(_COUNT, generator=generator).mul_(sizes).clamp_(-448, 448)
    x[: len(exact)] = exact
    x[len(exact) : len(exact) + len(ties)] = ties
    x[-1] = float("nan")
    rounded, bits = torch.full_like(x, 7.0), torch.zeros(_COUNT, dtype=torch.int8)
    _both[(1,)](x, rounded, bits, _COUNT)
    wanted = x.to(torch.float8_e4m3fn)
    minus_zero = (rounded == 0) & rounded.signbit()
    return (
        torch.equal(rounded[:-1], wanted.float()[:-1]) and not bool(minus_zero.any()),
        torch.equal(bits[:-1], wanted.view(torch.int8)[:-1]),
        bool(rounded[-1].isnan()),
    )
