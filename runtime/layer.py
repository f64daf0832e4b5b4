"""One decoder-layer forward for all Llama-shaped layers. It owns all communication and both streams.

A layer takes a Stream and returns one. Its four boundaries are bound ops of the current program; norms run on whatever
rows the layout leaves to this rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .collectives import BoundIn, BoundOut
from .sizes import Sizes
from .stream import Stream

if TYPE_CHECKING:
    from .executor import Executor


def add_and_norm(executor: Executor, stream: Stream, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """(normed rows, new residual) of a stream: the one place where residual add and norm happen."""
    if stream.pending is not None:
        return _sum_add_and_norm(executor, stream.pending, stream, norm)
    if stream.residual_RH is None:
        return executor.backend.rms_norm(stream.hidden_RH, norm), stream.hidden_RH
    return executor.backend.add_rms_norm(stream.hidden_RH, stream.residual_RH, norm)


def _sum_add_and_norm(executor: Executor, bound: BoundOut, stream: Stream, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The same where the sum is still due: one kernel does all three."""
    partial, residual, sizes = stream.hidden_RH, stream.residual_RH, stream.sizes
    executor.at(bound.place, bound.count, partial.shape[0])
    if residual is not None and bound.fold is not None:
        partial, residual = bound.fold(partial, residual, sizes), None
    elif residual is not None:
        residual = bound.residual(residual, sizes)
    assert bound.norm is not None
    return bound.norm(partial, residual, sizes, norm)


def cross_out(
    executor: Executor, bound: BoundOut, partial: Tensor, residual: Tensor | None, sizes: Sizes
) -> tuple[Tensor, Tensor | None, BoundOut | None]:
    """The first three fields of the stream behind an `_out` boundary.

    The partial rows are summed and the residual is brought to the same layout (None where the sum carries it), unless
    all that is left to the norm.
    """
    if bound.norm is not None:
        return partial, residual, bound
    executor.at(bound.place, bound.count, partial.shape[0])
    if residual is None:
        return bound.sum(partial, sizes), None, None
    if bound.fold is not None:
        return bound.sum(bound.fold(partial, residual, sizes), sizes), None, None
    summed = bound.sum(partial, sizes)
    return summed, bound.residual(residual, sizes), None


def cross_in(executor: Executor, bound: BoundIn, rows: Tensor, sizes: Sizes) -> Tensor:
    """The rows that the next block consumes."""
    executor.at(bound.place, bound.count, rows.shape[0])
    return bound.run(rows, sizes)


def layer_forward(layer: nn.Module, hidden_states: Any, **kwargs: Any) -> Stream:
    """Forward of a decoder layer under the current program."""
    executor: Executor = layer._commplan  # type: ignore[assignment]
    index: int = layer._commplan_index  # type: ignore[assignment]
    ops = executor.program.layers[index]
    stream = hidden_states if isinstance(hidden_states, Stream) else executor.enter(hidden_states)
    sizes = stream.sizes
    normed, residual = add_and_norm(executor, stream, layer.input_layernorm)  # type: ignore[arg-type]
    if ops.attn_in.latent:
        normed = executor.latents[index].project(normed)
    rows = cross_in(executor, ops.attn_in, normed, sizes)
    partial = _attention(layer, rows, stream, kwargs)
    stream = Stream(*cross_out(executor, ops.attn_out, partial, residual, sizes), sizes, stream.batch, stream.seq)
    normed, residual = add_and_norm(executor, stream, layer.post_attention_layernorm)  # type: ignore[arg-type]
    rows = cross_in(executor, ops.mlp_in, normed, sizes)
    partial = executor.mlps[index](rows)
    return Stream(*cross_out(executor, ops.mlp_out, partial, residual, sizes), sizes, stream.batch, stream.seq)


def _attention(layer: nn.Module, rows: Tensor, stream: Stream, kwargs: dict[str, Any]) -> Tensor:
    """Attention over this rank's requests: [group rows, width] to partial [group rows, H]; padding rows stay zero."""
    own, batch, seq = stream.sizes.own, stream.batch, stream.seq
    executor: Executor = layer._commplan  # type: ignore[assignment]
    if executor.idle:
        return rows.new_zeros(rows.shape[0], executor.hidden_size)
    padded = rows.shape[0] != own
    mine = rows[:own] if padded else rows  # a view costs a microsecond
    attended, _ = layer.self_attn(hidden_states=mine.view(batch, seq, -1), **kwargs)  # type: ignore[operator]
    out: Tensor = attended.reshape(own, -1)
    if not padded:
        return out
    partial = out.new_zeros(rows.shape[0], out.shape[1])
    partial[:own] = out
    return partial


def rows_of_mlp(mlp: nn.Module) -> Callable[[Tensor], Tensor]:
    """An MLP on rows [R, H]; some blocks insist on [1, R, H]."""

    def run(rows: Tensor) -> Tensor:
        found = mlp(rows.unsqueeze(0))
        out: Tensor = found[0] if isinstance(found, tuple) else found
        return out.reshape(rows.shape[0], -1)

    return run
