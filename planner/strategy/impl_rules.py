"""Why an impl does not perform an op by what it is told, or where it would stand: rules of what kernels are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .layout import LayerShape
from .ops import Op

if TYPE_CHECKING:
    from .executor_file import Impl

RESIDUAL_OUT = ("attn_out", "mlp_out")
"""Where a residual is added and a norm follows."""
_PUSHED_RANKS = 2


def algorithm_refusal(name: str, impl: Impl, op: Op) -> str | None:
    """Why an impl does not perform an op by what it is told, or by nothing, or None."""
    if impl.is_composed and op.algorithm is None and op.kind.composed:
        known = [each for each in op.kind.composed if each in (impl.algorithms or op.kind.composed)]
        return f"{name} performs {op.name} by an algorithm that the op names: {' or '.join(known)}"
    if impl.is_composed and op.algorithm in op.kind.composed:
        if op.pieces is not None and op.way.in_one_launch:
            return f"{op.algorithm} of {op.name} is one launch, which has no pieces"
        return None
    if op.algorithm in op.kind.composed and op.algorithm not in op.kind.own_algorithms:
        return f"{op.algorithm} of {op.name} is by kernels around whole messages, and {name} is another impl"
    if op.algorithm in op.kind.own_algorithms and not impl.is_own:
        return f"{op.algorithm} is an algorithm of commplan's own kernel of {op.name}, and {name} is another impl"
    return None


def place_refusal(name: str, impl: Impl, boundary: str, op: Op, group_size: int, shape: LayerShape) -> str | None:
    """Why a kernel of commplan's own cannot stand where the norm follows, or be told how rows travel, or None."""
    if impl.fuses_norm and (why := _norm_refusal(name, boundary, shape)):
        return why
    if op.is_pushed and (why := push_refusal(op, impl, group_size)):
        return f"{op.algorithm}: {why}"
    return None


def push_refusal(op: Op, impl: Impl, group_size: int) -> str | None:
    """Why rows cannot be pushed while they are made, or None."""
    if not impl.fuses_norm:
        return "rows that are pushed are taken by a kernel that adds and norms too"
    if op.residual is not None:
        return f"rows travel as the GEMM makes them, so a residual cannot {op.residual} in them"
    if group_size > _PUSHED_RANKS:
        return f"whole messages travel to every peer: it is for {_PUSHED_RANKS} ranks, and this group has {group_size}"
    return None


def _norm_refusal(name: str, boundary: str, shape: LayerShape) -> str | None:
    """Why a kernel that does the add and the norm behind a sum cannot do them here, or None."""
    if boundary not in RESIDUAL_OUT:
        why = f"{name} does the residual add and norm too, and at {boundary} there is no residual yet"
        return f"{why}: use one without"
    if shape.streams > 1:
        why = f"{name} adds one residual to the sum and norms it"
        return f"{why}; this model mixes the sum into {shape.streams} streams"
    if boundary == "mlp_out" and shape.ends_stage:
        why = f"{name} does the norm of the next layer too, and that layer is on the devices of the next stage"
        return f"{why}: use one without"
    return None
