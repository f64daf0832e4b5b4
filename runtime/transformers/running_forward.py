"""The forward in progress on this rank: its program and sizes, and where it stands. Layers and head know only this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from commplan.planner.strategy.file import FORWARD_MODES

from ..backends import Backend
from ..bound.counts import Count, Place
from ..bound.program import Program, Programs
from ..bound.sizes import Sizes, sizes_of
from ..collectives.row_moves import pad_rows
from ..errors import RefusedError
from ..ranks.agreement import ForwardShape, agree_on_forward, gather_numbers
from ..ranks.groups import Groups
from .latent import Latents
from .stream import Stream

_is_compiling = torch.compiler.is_compiling  # at every boundary: a lookup less


class RunningForward:
    """One forward after another, on one rank; `begin` starts the next.

    latents, attentions, mlps   of the layers, by their index
    connections     of layers whose residual is several streams: what makes the rows of attention and of the MLP
    ids_T           token ids of all rows, where a layer picks experts by them
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
        self.connections: dict[int, tuple[nn.Module, nn.Module]] = {}
        self.ids_T: Tensor | None = None
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

    def bring_ids(self, ids_BS: Tensor | None) -> None:
        """Note the token ids of the forward that has begun; with attention DP the groups tell each other theirs."""
        if ids_BS is None:
            raise RefusedError("experts of this model are picked by token id: give it input_ids", field="inputs_embeds")
        if not self.sizes.total:
            return
        p = self.groups.parallelism
        mine = pad_rows(ids_BS.reshape(-1, 1), self.sizes.group)[:, 0]
        if p.attn_dp > 1:
            everyone = gather_numbers(self.groups.control, mine.cpu())
            mine = everyone[:: p.attn_tp].reshape(-1).to(mine.device)
        self.ids_T = mine

    def ids_of(self, rows_RH: Tensor) -> Tensor:
        """The token ids of all rows, or of this rank's shard of them; 0 for rows that pad."""
        assert self.ids_T is not None
        if rows_RH.shape[0] == self.sizes.total:
            return self.ids_T
        shard, first = self.sizes.shard, self.groups.tp.rank * self.sizes.shard
        return pad_rows(self.ids_T.view(-1, 1), shard * self.groups.tp.size)[first : first + shard, 0]

    def enter(self, embedded_BSH: Tensor) -> Stream:
        """embed_out: the partial embedding becomes a stream."""
        batch, seq = embedded_BSH.shape[0], embedded_BSH.shape[1]
        sizes = self.sizes
        if torch.compiler.is_compiling():
            sizes = sizes_of(self.groups.parallelism, batch * seq, batch * seq)
        if embedded_BSH.ndim == 4:  # streams, which are all alike here
            embedded_BSH = embedded_BSH[:, :, 0]
        rows = embedded_BSH.reshape(batch * seq, embedded_BSH.shape[2])
        if self.complete_embeds and self.groups.attn_tp.rank != 0:
            rows = torch.zeros_like(rows)  # given whole on every rank, so one rank alone brings it to the sum
        bound = self.program.embed_out
        rows = pad_rows(rows, sizes.group)
        self.at(bound.place, bound.count, rows.shape[0])
        return Stream(bound.sum(rows, sizes), None, None, sizes, batch, seq)
