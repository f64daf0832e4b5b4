"""Norms where the residual is several streams: what mixes a block's output into them, and the next block's input out.

Hyper-connections (DeepSeek-V4's `mHC`): every stream is read and written behind a block, and all are read again for the
row that the next block takes. Attention residuals (Kimi-K3): the output is added to one stream, and the next row is a
sum over all of them. Partial sums stay one stream wide: only what is kept between layers is wider.
"""

from __future__ import annotations

from ..descriptions.model import Model
from ..executors import Kernel, Traffic
from ..strategy.words import RowRule
from .terms import Gemm, Passes, Term

_ROW = 2  # bytes per element


def mixing(model: Model, rows: RowRule, *, has_residual: bool) -> list[Term]:
    """What runs before a norm on these rows: the weights of the mix, and the passes; nothing where there is one stream.

    Before the first layer there is no residual: the streams are copies of the embedding.
    """
    streams = model.residual_streams
    if streams == 1:
        return []
    wide = _ROW * streams
    written = wide if model.hc_mult is not None else _ROW
    read = _ROW + written if has_residual else _ROW
    kernels = (
        Kernel(name="mix_in", read=Traffic(message=read), write=Traffic(message=written)),
        Kernel(name="mix_out", read=Traffic(message=wide), write=Traffic(message=_ROW)),
    )
    passes = Term("norm", "mix_in+mix_out", rows, model.hidden_size, Passes(kernels, 1))
    if model.hc_mult is None:
        return [passes]
    projected = Gemm((2 + model.hc_mult) * model.hc_mult)  # of all streams, to the weights by which they are mixed
    return [Term("norm", "weights of the mix", rows, model.hidden_size * streams, projected), passes]
