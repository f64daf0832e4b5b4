"""The forward in progress on this rank: its program and sizes, and where it stands. Layers and head know only this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from commplan.planner.strategy.file import FORWARD_MODES

from ..backends import Backend
from ..bound.counts import Count, Place
from ..bound.program import Program, Programs
from ..bound.sizes import Sizes, sizes_of
from ..collectives.row_moves import pad_rows
from ..ranks.agreement import ForwardShape, agree_on_forward
from ..ranks.groups import Groups
from .latent import Latents
from .stream import Stream

_is_compiling = torch.compiler.is_compiling  # at every boundary: a lookup less


class RunningForward:
    """One forward after another, on one rank; `begin` starts the next.

    latents, attentions, mlps   of the layers, by their index
    shapes          what every rank brings to this forward
    head_rows_NH    the rows whose logits the ranks compute together, once they are there
    place           where the last op ran; None before the first, and in graphs
    idle            this rank's DP group has no rows
    """

    def __init__(self, groups: Groups, backend: Backend, hidden_size: int, *, agree: bool) -> None:
        self.groups, self.backend, self.hidden_size = groups, backend, hidden_size
        self.latents: dict[int, Latents] = {}
        self.attentions: list[Callable[[Tensor, dict[str, Any]], tuple[Tensor, tuple[Any, ...]]]] = []
        self.mlps: list[Callable[[Tensor], Tensor]] = []
        self.program: Program
        self.sizes = Sizes(0, 0, 0, 0)
        self.shapes: list[ForwardShape] = []
        self.place: Place | None = None
        self.head_rows_NH: Tensor | None = None
        self.idle = False
        self.complete_embeds = False
        self._agree = agree

    def begin(self, programs: Programs, mode: str, batch: int, seq: int, logit_rows: int) -> None:
        """Agree on the size of the forward and pick its program."""
        p = self.groups.parallelism
        shape = ForwardShape(FORWARD_MODES.index(mode), batch, seq, logit_rows)
        if self._agree or p.attn_dp > 1:
            self.shapes = agree_on_forward(self.groups, shape)
        else:
            self.shapes = [shape] * p.tp
        largest = max(s.batch * s.seq for s in self.shapes)
        self.sizes = sizes_of(p, batch * seq, largest)
        self.place = None
        if self.sizes.total:
            self.program = programs.of(mode, self.sizes.total)
            for index, latents in self.latents.items():
                latents.set_gathered(self.program.layers[index].attn_in.latent)

    def at(self, place: Place, count: Count, rows: int) -> None:
        """Note that an op is about to run."""
        if _is_compiling():
            return
        self.place = place
        count.calls += 1
        count.rows += rows

    def enter(self, embedded_BSH: Tensor) -> Stream:
        """embed_out: the partial embedding becomes a stream."""
        batch, seq = embedded_BSH.shape[0], embedded_BSH.shape[1]
        sizes = self.sizes
        if torch.compiler.is_compiling():
            sizes = sizes_of(self.groups.parallelism, batch * seq, batch * seq)
        rows = embedded_BSH.reshape(batch * seq, embedded_BSH.shape[2])
        if self.complete_embeds and self.groups.attn_tp.rank != 0:
            rows = torch.zeros_like(rows)  # given whole on every rank, so one rank alone brings it to the sum
        bound = self.program.embed_out
        rows = pad_rows(rows, sizes.group)
        self.at(bound.place, bound.count, rows.shape[0])
        return Stream(bound.sum(rows, sizes), None, None, sizes, batch, seq)
