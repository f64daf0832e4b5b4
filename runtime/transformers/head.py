"""head_in: bring together the rows that need logits, and no others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..bound.sizes import Sizes
from ..ranks.agreement import ForwardShape
from .running_forward import RunningForward
from .stream import Stream


def leave(now: RunningForward, rows: Tensor, stream: Stream) -> Tensor:
    """Normed rows in their layout to [B, kept, H] of this rank's requests."""
    now.head_rows_NH, mine = gather_logit_rows(now, rows, stream, now.shapes)
    return mine


def head_rows(now: RunningForward, x: Tensor) -> Tensor:
    """The rows whose logits the ranks compute together: with attention DP those of all groups."""
    if now.groups.parallelism.attn_dp == 1:
        return x.reshape(-1, x.shape[-1])
    assert now.head_rows_NH is not None
    return now.head_rows_NH


def own_logit_rows(now: RunningForward, total: int) -> tuple[int, int]:
    """First and number of this rank's rows among those of `head_rows`."""
    p = now.groups.parallelism
    if p.attn_dp == 1:
        return 0, total
    group = now.groups.attn_dp.rank
    counts = [shape.logit_rows for shape in now.shapes[:: p.attn_tp]]
    return sum(counts[:group]), counts[group]


def gather_logit_rows(
    now: RunningForward, rows: Tensor, stream: Stream, shapes: list[ForwardShape]
) -> tuple[Tensor, Tensor]:
    """(rows of all groups that need logits [N, H], those of this rank's requests [B, kept, H])."""
    bound, sizes, p = now.program.head_in, stream.sizes, now.groups.parallelism
    if torch.compiler.is_compiling() or (bound.gather is None and p.attn_dp == 1):
        now.at(bound.place, bound.count, rows.shape[0])
        everything = bound.run(rows, sizes)
        return everything, everything[: sizes.own].view(stream.batch, stream.seq, rows.shape[1])
    needed = _needed_rows(shapes[:: p.attn_tp], sizes)
    if bound.gather is not None:
        gathered = _gather_some(now, rows, needed, sizes)
    else:
        now.at(bound.place, bound.count, rows.shape[0])
        gathered = bound.run(rows, sizes)[needed.to(rows.device)]
    first, count = own_logit_rows(now, gathered.shape[0])
    mine = gathered[first : first + count]
    kept = shapes[now.groups.tp.rank].logit_rows // max(1, stream.batch)
    return gathered, mine.view(stream.batch, kept, rows.shape[1])


def _needed_rows(groups: list[ForwardShape], sizes: Sizes) -> Tensor:
    """Global row numbers, group by group, request by request: the last rows of each request. On the host: all ranks
    know them, and nobody should wait for a device."""
    parts = []
    for index, shape in enumerate(groups):
        if shape.logit_rows == 0:
            continue
        kept = shape.logit_rows // shape.batch
        request = torch.arange(shape.batch).unsqueeze(1) * shape.seq
        position = torch.arange(shape.seq - kept, shape.seq).unsqueeze(0)
        parts.append((request + position).reshape(-1) + index * sizes.group)
    return torch.cat(parts)


def _gather_some(now: RunningForward, rows: Tensor, needed: Tensor, sizes: Sizes) -> Tensor:
    """An all-gather of the needed rows alone. Every rank sends as many rows as the one that holds most of them."""
    bound = now.program.head_in
    assert bound.place.before is not None
    assert bound.group is not None and bound.gather is not None
    per_rank = sizes.of(bound.place.before.hidden)
    owner = needed // per_rank
    counts = torch.bincount(owner, minlength=bound.group.size)
    most = int(counts.max())
    mine = needed[owner == bound.group.rank] - bound.group.rank * per_rank
    send = rows.new_zeros(most, rows.shape[1])
    send[: mine.shape[0]] = rows[mine.to(rows.device)]
    now.at(bound.place, bound.count, most)
    received = bound.gather(send)
    starts = torch.cumsum(counts, 0) - counts
    order = owner * most + torch.arange(needed.shape[0]) - starts[owner]
    return received[order.to(rows.device)]


def no_logits(model: Any, batch: int, kept: int, device: torch.device) -> Any:
    """The output of a rank without requests: [batch, kept, V] zeros."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    weight = model.lm_head.weight
    logits = torch.zeros(batch, kept, model.config.get_text_config().vocab_size, dtype=weight.dtype, device=device)
    return CausalLMOutputWithPast(logits=logits)
