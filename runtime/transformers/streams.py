"""Hyper-connections: a residual of several streams, of which a block reads one row and into which its sum is mixed.

How a sum is mixed in depends on the streams from before the block. So the residual that waits for a sum is those
streams, mixed already, with the weights of the sum behind them: one tensor of rows, which ops move like any residual.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .stream import Stream


def streams_of(stream: Stream, count: int) -> Tensor:
    """[R, count, H]: the sum in all streams; behind the embedding they are all alike."""
    hidden_RH, waiting = stream.hidden_RH, stream.residual_RH
    assert stream.pending is None, "no kernel norms behind a sum that is mixed into streams"
    if waiting is None:
        return hidden_RH.unsqueeze(1).repeat(1, count, 1)
    width = count * hidden_RH.shape[1]
    mixed = waiting[:, :width].view(-1, count, hidden_RH.shape[1])
    return waiting[:, width:].unsqueeze(-1) * hidden_RH.unsqueeze(1) + mixed


def read_block(connection: Any, stream: Stream) -> tuple[Tensor, Tensor]:
    """(rows that a block reads [R, H], the residual that waits for its sum [R, count * H + count])."""
    streams = streams_of(stream, connection.hc_mult).unsqueeze(0)
    weights, mix, row = connection(streams)
    dtype = streams.dtype
    mixed = torch.matmul(mix.to(dtype).transpose(-1, -2), streams)
    return row[0], torch.cat([mixed.flatten(2), weights.to(dtype)], dim=-1)[0]


def read_head(head: Any, stream: Stream) -> Tensor:
    """The rows that the last norm reads [R, H]."""
    row: Tensor = head(streams_of(stream, head.hc_mult).unsqueeze(0))[0]
    return row


def take_over_head(base: Any) -> nn.Module | None:
    """The module that makes one row of the streams behind the last layer: the last norm calls it from now on."""
    head: nn.Module | None = getattr(base, "hc_head", None)
    if head is not None:
        base.hc_head = nn.Identity()
    return head
