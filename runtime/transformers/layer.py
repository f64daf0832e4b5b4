"""One decoder-layer forward for all Llama-shaped layers. It owns all communication and both streams.

A layer takes a Stream and returns one. Its four boundaries are bound ops of the current program; norms run on whatever
rows the layout leaves to this rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..bound.bound_ops import BoundIn, BoundOut
from ..bound.sizes import Sizes
from .running_forward import RunningForward
from .stream import Stream
from .streams import read_block

_OF_FULL_ATTENTION = ("position_embeddings", "position_ids", "past_key_values")


def add_and_norm(
    now: RunningForward, stream: Stream, norm: nn.Module, connection: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """(normed rows, new residual) of a stream: the one place where residual add and norm happen.

    `connection`: the residual is several streams, and this makes one row of them.
    """
    if connection is not None:
        row, waiting = read_block(connection, stream)
        return now.backend.rms_norm(row, norm), waiting
    if stream.pending is not None:
        return _sum_add_and_norm(now, stream.pending, stream, norm)
    if stream.residual_RH is None:
        return now.backend.rms_norm(stream.hidden_RH, norm), stream.hidden_RH
    return now.backend.add_rms_norm(stream.hidden_RH, stream.residual_RH, norm)


def _sum_add_and_norm(now: RunningForward, bound: BoundOut, stream: Stream, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The same where the sum is still due: one kernel does all three."""
    partial, residual, sizes = stream.hidden_RH, stream.residual_RH, stream.sizes
    now.at(bound.place, bound.count, partial.shape[0])
    if residual is not None and bound.fold is not None:
        partial, residual = bound.fold(partial, residual, sizes), None
    elif residual is not None:
        residual = bound.residual(residual, sizes)
    assert bound.norm is not None
    return bound.norm(partial, residual, sizes, norm, stream.owned)


def cross_out(
    now: RunningForward, bound: BoundOut, partial: Tensor, residual: Tensor | None, sizes: Sizes
) -> tuple[Tensor, Tensor | None, BoundOut | None]:
    """The first three fields of the stream behind an `_out` boundary.

    The partial rows are summed and the residual is brought to the same layout (None where the sum carries it), unless
    all that is left to the norm.
    """
    if bound.norm is not None:
        return partial, residual, bound
    now.at(bound.place, bound.count, partial.shape[0])
    if residual is None:
        return bound.sum(partial, sizes), None, None
    if bound.fold is not None:
        return bound.sum(bound.fold(partial, residual, sizes), sizes), None, None
    summed = bound.sum(partial, sizes)
    return summed, bound.residual(residual, sizes), None


def cross_in(now: RunningForward, bound: BoundIn, rows: Tensor, sizes: Sizes) -> Tensor:
    """The rows that the next block consumes."""
    now.at(bound.place, bound.count, rows.shape[0])
    return bound.run(rows, sizes)


def layer_forward(layer: nn.Module, hidden_states: Any, **kwargs: Any) -> Any:
    """Forward of a decoder layer under the current program: a Stream, with what its attention hands to the next one."""
    now: RunningForward = layer._commplan  # type: ignore[assignment]
    index: int = layer._commplan_index  # type: ignore[assignment]
    ops = now.program.layers[index]
    stream = hidden_states if isinstance(hidden_states, Stream) else now.enter(hidden_states)
    sizes = stream.sizes
    of_attention, of_mlp = now.connections.get(index, (None, None))
    normed, residual = add_and_norm(now, stream, layer.input_layernorm, of_attention)  # type: ignore[arg-type]
    if ops.attn_in.latent:
        normed = now.latents[index].project(normed)
    rows = cross_in(now, ops.attn_in, normed, sizes)
    partial, handed_on = _attention(now, index, rows, stream, kwargs)
    owned = stream.pending is not None or stream.residual_RH is not None  # else the residual is what came in
    stream = Stream(*cross_out(now, ops.attn_out, partial, residual, sizes), sizes, stream.batch, stream.seq, owned)
    normed, residual = add_and_norm(now, stream, layer.post_attention_layernorm, of_mlp)  # type: ignore[arg-type]
    rows = cross_in(now, ops.mlp_in, normed, sizes)
    partial = now.mlps[index](rows)
    stream = Stream(*cross_out(now, ops.mlp_out, partial, residual, sizes), sizes, stream.batch, stream.seq)
    return (stream, *handed_on) if handed_on else stream


def _attention(
    now: RunningForward, index: int, rows: Tensor, stream: Stream, kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...]]:
    """Attention over this rank's requests: [group rows, width] to partial [group rows, H]; padding rows stay zero."""
    own, batch, seq = stream.sizes.own, stream.batch, stream.seq
    if now.idle:
        return rows.new_zeros(rows.shape[0], now.hidden_size), ()
    padded = rows.shape[0] != own
    mine = rows[:own] if padded else rows  # a view costs a microsecond
    attended, handed_on = now.attentions[index](mine.view(batch, seq, -1), kwargs)
    out: Tensor = attended.reshape(own, -1)
    if not padded:
        return out, handed_on
    partial = out.new_zeros(rows.shape[0], out.shape[1])
    partial[:own] = out
    return partial, handed_on


def attention_of(layer: nn.Module) -> Callable[[Tensor, dict[str, Any]], tuple[Tensor, tuple[Any, ...]]]:
    """A layer's attention on [B, S, H] and what the model gives the layer: (partial [B, S, H], what it hands on).

    Handed on to the next layer is what an attention returns behind its output and its weights.
    """

    def attend(hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...]]:
        found = layer.self_attn(hidden_states=hidden, **kwargs)  # type: ignore[operator]
        return found[0], found[2:]

    def attend_linearly(hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...]]:
        others = {key: value for key, value in kwargs.items() if key not in _OF_FULL_ATTENTION}
        state = kwargs.get("past_key_values")
        return layer.linear_attn(hidden_states=hidden, cache_params=state, **others), ()  # type: ignore[operator]

    return attend if hasattr(layer, "self_attn") else attend_linearly


def rows_of_mlp(mlp: nn.Module, now: RunningForward) -> Callable[[Tensor], Tensor]:
    """An MLP on rows [R, H]; some blocks insist on [1, R, H], and some choose experts by the rows' token ids."""
    by_id = picks_by_id(mlp)

    def run(rows: Tensor) -> Tensor:
        found = mlp(rows.unsqueeze(0), input_ids=now.ids_of(rows)) if by_id else mlp(rows.unsqueeze(0))
        out: Tensor = found[0] if isinstance(found, tuple) else found
        return out.reshape(rows.shape[0], -1)

    return run


def picks_by_id(mlp: nn.Module) -> bool:
    """Does a table pick this MLP's experts by token id?"""
    return hasattr(getattr(mlp, "gate", None), "tid2eid")
