"""What a server does by itself: data that stands under `stock` in its executor's file.

A server follows rules: which all-reduce takes a message, when a fused kernel takes the sum with its norm, what a flag
changes. Nothing here is searched or optimised: it is what runs where nobody planned.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ..descriptions.base import Count, FieldError, Figure, OneOf, PositiveInt, Spec, Text
from ..strategy.errors import InputError
from ..strategy.layout import BOUNDARIES
from ..strategy.ops import Op, parse
from .limits import ByCapability
from .where import Graphs, Where


def _op(value: object) -> object:
    try:
        return value if isinstance(value, Op) else parse(value, "op")
    except InputError as error:
        raise ValueError(error.message) from None


PlacedOp = Annotated[Op, BeforeValidator(_op)]
Ops = dict[Annotated[str, OneOf(BOUNDARIES)], PlacedOp]


class Sized(Where):
    """A rule with a limit of messages: one for all, or by compute capability and ranks; without any, its impl's."""

    impl: Text
    max_message_bytes: PositiveInt | None = None
    max_message_bytes_by: ByCapability | None = None

    def takes(self, message_bytes: float) -> bool:
        """True for a message within the limit."""
        return self.max_message_bytes is None or message_bytes <= self.max_message_bytes


class StockSum(Sized):
    """An all-reduce of the server's own: its impl takes messages up to a size, over ranks of one node."""

    max_ranks: PositiveInt | None = None


class StockFusion(Sized):
    """A sum with the residual add and norm that follow in one kernel, up to a size, over ranks of one node.

    before_head  the last sum of all too, with the norm before the head
    """

    before_head: bool = False
    max_tokens: PositiveInt | None = None

    def fuses(self, tokens: int, message_bytes: float) -> bool:
        """True for a forward within the limits."""
        return self.takes(message_bytes) and (self.max_tokens is None or tokens <= self.max_tokens)


class Overlap(Where):
    """Scatters and gathers that run beside the GEMM they are fused with, in as many chunks as there are ranks.

    One chunk in N has no GEMM to hide behind. A fused op has launches and barriers of its own, whatever its size.
    """

    per_op_us: Figure


class StockForward(Where):
    """The ops of a forward by boundary, in all layers, in those with experts, in the last.

    takes_own      only while an all-reduce of the server's own takes all rows of the forward at once
    extra_gathers  gathers of all rows that the ops do not show, per forward
    """

    ops: Ops
    in_moe_layers: Ops = Field(default_factory=dict)
    in_last_layer: Ops = Field(default_factory=dict)
    takes_own: bool = False
    extra_gathers: Count = 0
    overlap: Overlap | None = None

    def op(self, boundary: str, is_moe: bool, is_last: bool) -> Op | None:
        """The op at a boundary of a layer, or None where nothing is said of it."""
        named = self.ops
        if is_moe and boundary in self.in_moe_layers:
            named = self.in_moe_layers
        if is_last and boundary in self.in_last_layer:
            named = self.in_last_layer
        return named.get(boundary)


class StockFlag(StockForward):
    """A flag of the server: its forwards, in the modes where it changes them."""

    name: Text


class Stock(Spec):
    """What the server does by itself; of rules that cover a place the first one stands.

    sums      who performs an all-reduce; where none takes it, the library of the machine
    fusions   what takes a sum together with the norm that follows
    forwards  which ops there are
    flags     the same under a flag that a user may set
    graphs    which forwards the server replays from graphs, whatever a plan's are launched by
    """

    source: Text
    sums: tuple[StockSum, ...] = ()
    fusions: tuple[StockFusion, ...] = ()
    forwards: tuple[StockForward, ...]
    flags: tuple[StockFlag, ...] = ()
    graphs: tuple[Graphs, ...] = ()

    @model_validator(mode="after")
    def _ends_with_any(self) -> Stock:
        last = self.forwards[-1] if self.forwards else None
        if last is None or last.takes_own or any(getattr(last, name) != value for name, value in _ANYWHERE.items()):
            raise FieldError("forwards", "the last entry speaks of every forward: it has `ops` and no condition")
        return self


_ANYWHERE: dict[str, Any] = {name: field.default for name, field in Where.model_fields.items()}
