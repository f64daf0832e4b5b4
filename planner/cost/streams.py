"""Norms where the residual is several streams: what mixes a block's output into them, and the next block's input out.

Hyper-connections (DeepSeek-V4's `mHC`): every stream is read and written behind a block, and all are read again for the
row that the next block takes. Attention residuals (Kimi-K3): the output is added to one stream, and the next row is a
sum over all of them. Partial sums stay one stream wide: only what is kept between layers is wider.
"""

from __future__ import annotations

from ..descriptions.model import Model
from ..executors import Kernel, Kernels, Traffic

_ROW = 2  # bytes per element


def mixing(model: Model, has_residual: bool) -> Kernels:
    """The passes before a norm, per element of a row of hidden width; none where the residual is one stream."""
    streams = model.residual_streams
    if streams == 1:
        return ()
    wide = _ROW * streams
    written = wide if model.hc_mult is not None else _ROW
    read = _ROW + written if has_residual else _ROW  # before the first layer the streams are copies of the embedding
    return (
        Kernel(name="mix_in", read=Traffic(message=read), write=Traffic(message=written)),
        Kernel(name="mix_out", read=Traffic(message=wide), write=Traffic(message=_ROW)),
    )


def mixing_weights(model: Model) -> int:
    """Columns of the projection of all streams by which they are mixed; 0 where nothing is projected."""
    return (2 + model.hc_mult) * model.hc_mult if model.hc_mult is not None else 0
