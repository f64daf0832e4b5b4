"""What travels between layers: the two streams, and the sizes of the forward."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..bound.bound_ops import BoundOut
from ..bound.sizes import Sizes


class Stream(NamedTuple):
    """Between an `_out` boundary and the norm that follows.

    hidden_RH    the summed rows, not normed yet
    residual_RH  the residual in the same layout, not added yet; None where `hidden` carries it
    pending      a sum that is still due, because one kernel does it with the norm: `hidden` then holds the partial
                 rows and `residual` the rows from before the boundary, each in its own layout
    batch, seq   of this rank's requests, so that attention can see [B, S, H]
    owned        the residual is memory that nobody outside of the layer has seen, so the norm may overwrite it
    """

    hidden_RH: Tensor  # noqa: N815
    residual_RH: Tensor | None  # noqa: N815
    pending: BoundOut | None
    sizes: Sizes
    batch: int
    seq: int
    owned: bool = False
