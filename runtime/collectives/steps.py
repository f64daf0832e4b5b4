"""An op by the library of a backend: the steps of its record, one behind the other.

Resolved once at start: what a forward does is a chain of calls.

Shapes: T rows of the message, padded to whole shards where a step asks for it, H width, N ranks of the op's group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from commplan.planner.strategy.file import Op, Send, Way

from ..backends import Backend
from ..errors import RefusedError
from ..ranks.groups import Group, Groups
from .formats import FORMATS, Format
from .row_moves import pad_rows

Chain = Callable[[Tensor, int], Tensor]
"""(rows, rows of a shard) to rows."""


def as_they_are(op: Op, group: Group, groups: Groups, backend: Backend) -> Chain:
    """An op whose rows travel as they are: the partial rows [T, H] to what the last collective gives."""
    calls = [_collective(send, group, groups, backend) for send in op.way.sends]
    if len(calls) == 1:
        return calls[0]

    def run(x: Tensor, shard: int) -> Tensor:
        for call in calls:
            x = call(x, shard)
        return x

    return run


def _collective(send: Send, group: Group, groups: Groups, backend: Backend) -> Chain:
    name, over, size = send.by.name, groups.of(send.over) if send.over else group, group.size
    if over.size == 1 and send.over:
        return lambda x, shard: x  # noqa: ARG005
    if send.rows == "padded" and not send.over:  # along an axis of attention DP rows are padded already
        return lambda x, shard: getattr(backend, name)(pad_rows(x, shard * size).contiguous(), over)
    return lambda x, shard: getattr(backend, name)(x.contiguous(), over)  # noqa: ARG005


def format_of(name: str, backend: Backend) -> Format:
    """A wire format on a backend; raises RefusedError where this runtime has none of that name."""
    if name not in FORMATS:
        raise RefusedError(f"this runtime quantises to {', '.join(FORMATS)} only", field="wire", value=name)
    return FORMATS[name](backend)


def quantized(way: Way, group: Group, wire: Format, backend: Backend) -> Callable[[Tensor], Tensor]:
    """A quantised sum [T, H] to [T, H]. All ranks hold the same bits: an owner too uses what it sends."""
    steps = [
        _sent(step, group, backend) if isinstance(step, Send) else _PASSES[step.step](wire, group.size)
        for step in way.steps
    ]

    def run(x: Tensor) -> Tensor:
        held = _Held(x, x, x)
        for step in steps:
            held = step(held, x)
        return held.rows

    return run


class _Held(NamedTuple):
    """Where a quantised sum stands: rows, or the values and scales that they are on the way."""

    rows: Tensor
    values: Tensor
    scales: Tensor


_Step = Callable[[_Held, Tensor], _Held]
"""(what is held, the message) to what is held after the step."""


def _sent(send: Send, group: Group, backend: Backend) -> _Step:
    name, size = send.by.name, group.size

    def moved(part: Tensor) -> Tensor:
        if not send.by.takes_shards:  # blocks of equal size
            part = pad_rows(part, -(-part.shape[0] // size) * size)
        return getattr(backend, name)(part, group)  # type: ignore[no-any-return]

    if send.part == "values":
        return lambda held, x: _Held(held.rows, moved(held.values), held.scales)  # noqa: ARG005
    return lambda held, x: _Held(held.rows, held.values, moved(held.scales))  # noqa: ARG005


def _quantize(wire: Format, size: int) -> _Step:  # noqa: ARG001
    """Rows to values and scales."""
    return lambda held, x: _Held(held.rows, *wire.quantize(held.rows))  # noqa: ARG005


def _dequantize_sum(wire: Format, size: int) -> _Step:
    """Every rank's values and scales to the sum."""
    return lambda held, x: held._replace(rows=wire.dequantize_sum(held.values, held.scales, size, x.dtype))


def _reduce_shard(wire: Format, size: int) -> _Step:
    """Every rank's values and scales of this rank's shard to those of its sum."""
    summed, again = _dequantize_sum(wire, size), _quantize(wire, size)
    return lambda held, x: again(summed(held, x), x)


def _dequantize(wire: Format, size: int) -> _Step:  # noqa: ARG001
    """Values and scales to rows, without what was padded."""

    def run(held: _Held, x: Tensor) -> _Held:
        tokens = x.shape[0]
        return held._replace(rows=wire.dequantize(held.values[:tokens], held.scales[:tokens], x.dtype))

    return run


_PASSES: dict[str, Callable[[Format, int], _Step]] = {
    "quantize": _quantize,
    "dequantize_sum": _dequantize_sum,
    "reduce_shard": _reduce_shard,
    "dequantize": _dequantize,
}
