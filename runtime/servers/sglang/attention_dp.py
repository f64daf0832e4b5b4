"""Hooks of a scheduler process for attention DP, where SGLang 0.5.23 takes no op at a boundary.

Between attention and MLP the rows travel in functions of SGLang's layer boundaries, one call for each layer; the hooks
do that work by the planned ops, in place of SGLang's own pair. What a call has to do with is told by its norm (a layer
has one for attention and one for the MLP) or by the plan of its stage, so layers may differ as they do elsewhere.

    around_attention_input  attn_in, after SGLang's add and norm
    around_mlp_input        attn_out, add and norm, mlp_in
    around_exit             mlp_out
    around_logit_rows       head_in: the rows that need logits

Rows, as SGLang has them: a rank brings those of its DP group, padded to attn_tp at least; an MLP works on those of all
groups, one behind the other. Ops want every group padded to the largest, so rows are padded before an op, and the
padding is cut before SGLang sees them again. A group without requests brings no rows, and takes part in every op.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from commplan.planner.strategy.file import Layout, State, StrategyFile

from ...bound.bound_ops import BoundOut
from ...collectives.row_moves import pad_rows
from ...errors import BoundaryError, RefusedError
from ..forward import Forward, Forwards

Hook = Callable[..., Any]
_BOUNDARY = "sglang.srt.layers.layer_boundary."
_LOGITS = "sglang.srt.layers.logits_processor.LogitsProcessor."
_GROUP = "sglang.srt.distributed.parallel_state.GroupCoordinator."
# By these SGLang's own pairs travel.
_OF_SGLANG = ("reduce_scatter_tensor", "reduce_scatterv", "all_gather_into_tensor", "all_gatherv")


class AttentionDpHooks:
    """The hooks, and which layer a norm or a stage belongs to."""

    def __init__(self, file: StrategyFile, forwards: Forwards) -> None:
        self.file, self.forwards = file, forwards
        self.attention: Layout = file.parallelism.attention_layout
        self.groups: tuple[int, ...] = ()  # rows of each DP group in the forward in progress
        self._layers: dict[int, int] = {}  # identity of a norm or of a stage's plan -> layer

    def table(self) -> dict[str, Hook]:
        """Dotted path of a function of SGLang's -> the hook around it."""
        alone = self.file.parallelism.attn_tp == 1  # a DP group of one rank has nothing to sum at attn_out
        return {
            _BOUNDARY + "boundary._update_read": self.around_attention_input,
            _BOUNDARY + "boundary." + ("_reduce_update_read_dp_gather" if alone else "_dp_gather_sum_read"): (
                self.around_mlp_input
            ),
            _BOUNDARY + "exit.ExitPolicy._decide": self.around_exit,
            _LOGITS + "_gather_dp_attn_hidden_states": self.around_logit_rows,
            **{_GROUP + name: self.around_collective for name in _OF_SGLANG},
        }

    # ---- the forward -------------------------------------------------------------------------------------------------

    def shape(self, model: Any, batch: Any, own: int) -> tuple[str, int, int]:
        """(mode, rows of this DP group, rows of the largest) of a forward, the mode and the last equal on all ranks.

        A forward in which some group prefills is a prefill, whatever the others do.
        """
        if not self._layers:
            self._learn(model.model.layers)
        counts = batch.global_num_tokens_cpu
        self.groups = (own,) * self.file.parallelism.attn_dp if counts is None else tuple(counts)
        return ("prefill" if batch.is_extend_in_batch else "decode"), own, max(self.groups)

    def _learn(self, layers: Any) -> None:
        for index, layer in enumerate(layers):
            for owner in (layer.attn_boundary.norm, layer.ffn_boundary.norm, layer.ffn_boundary.plan):
                self._layers[id(owner)] = index

    def _layer(self, owner: object) -> int:
        index = self._layers.get(id(owner))
        if index is None:
            raise BoundaryError("a stage runs that is not of a layer of the plan", where=type(owner).__name__)
        return index

    # ---- the boundaries ----------------------------------------------------------------------------------------------

    def around_attention_input(
        self, update_read: Hook, hidden: Any, residual: Any, batch: Any, norm: Any, **call: Any
    ) -> tuple[Any, Any]:
        """(hidden, residual) in the layout that the last layer left them, to (attention's input, residual)."""
        normed, residual = update_read(hidden, residual, batch, norm, **call)
        now = self.forwards.at("attn_in")
        bound = now.program.layers[self._layer(norm)].attn_in
        if not bound.place.op.kind.runs:
            return normed, residual
        return self._narrow(now, self.forwards.run(bound, bound.run, normed), self.attention), residual

    def around_mlp_input(
        self,
        original: Hook,  # noqa: ARG002
        partial_rows: Tensor,
        residual: Tensor,
        batch: Any,  # noqa: ARG002
        norm: Any,
        *,
        read: Any,
        update: Any,
        **call: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Attention's output and the residual to (the MLP's input, residual)."""
        now = self.forwards.at("attn_out")
        ops = now.program.layers[self._layer(norm)]
        rows = pad_rows(partial_rows, now.sizes.of(self.attention))
        summed, carried = self._cross(now, ops.attn_out, rows, residual)
        if carried is None:
            normed, residual = read.read(summed, norm)
        else:
            normed, residual = read.update_and_read(update, summed, carried, norm)
        everything = self.forwards.run(ops.mlp_in, ops.mlp_in.run, normed)
        return self._unpadded(now, everything), self._narrow(now, residual, ops.attn_out.place.after.residual)

    def around_exit(self, decide: Hook, policy: Any, batch: Any, steps: Any, **call: Any) -> Any:  # noqa: ARG002
        """ExitPolicy._decide: what completes the MLP's output is the planned op, here and now."""
        from sglang.srt.layers.layer_boundary.exit import ExitDecision

        return ExitDecision(
            defer_moe_finalize=False,
            sum_in_reduce_scatter=True,
            complete=partial(self._leave, self._layer(policy.plan)),
        )

    def _leave(self, layer: int, output: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
        now = self.forwards.at(f"layer {layer} mlp_out")
        bound = now.program.layers[layer].mlp_out
        summed, carried = self._cross(now, bound, self._padded(now, output), residual)
        after: State = bound.place.after
        if carried is not None:
            carried = self._narrow(now, carried, after.residual)
        return self._narrow(now, summed, after.hidden), carried

    def _cross(self, now: Forward, bound: BoundOut, rows: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sum partial rows, and bring the residual along; None where the sum carries it."""
        assert bound.place.before is not None
        if bound.place.before.residual == self.attention:
            residual = pad_rows(residual, now.sizes.of(self.attention))
        if bound.fold is not None:
            return self.forwards.run(bound, bound.sum, bound.fold(rows, residual, now.sizes)), None
        summed = self.forwards.run(bound, bound.sum, rows)
        return summed, bound.residual(residual, now.sizes)

    def around_logit_rows(self, gather: Hook, processor: Any, hidden: Tensor, about: Any) -> tuple[Tensor, Tensor]:
        """LogitsProcessor: (rows of all groups that need logits, those of this one)."""
        now = self.forwards.current
        if now is None or not processor.do_tensor_parallel_all_gather_dp_attn:
            gathered: tuple[Tensor, Tensor] = gather(processor, hidden, about)
            return gathered
        about.compute_dp_attention_metadata()
        counts = about.global_num_tokens_for_logprob_cpu
        bound = now.program.head_in
        assert bound.group is not None
        mine = hidden[: counts[bound.group.rank]]
        most = max(counts)
        everything = self.forwards.run(bound, bound.run, pad_rows(mine, most))
        now.at_head = True
        return _blocks(everything, most, counts), hidden

    def around_collective(self, original: Hook, group: Any, *args: Any, **options: Any) -> Any:
        """SGLang's other collectives: between embedding and head none of them was planned."""
        now = self.forwards.current
        if now is not None and group.world_size > 1 and not now.at_head:
            now.unplanned += 1
        return original(group, *args, **options)

    # ---- rows --------------------------------------------------------------------------------------------------------

    def _narrow(self, now: Forward, rows: Tensor, layout: Layout) -> Tensor:
        """What SGLang sees of rows in a layout: attention's without padding, others as they are."""
        return rows[: now.sizes.own] if layout == self.attention else rows

    def _unpadded(self, now: Forward, rows: Tensor) -> Tensor:
        return rows if now.tokens == sum(self.groups) else _blocks(rows, now.sizes.group, self.groups)

    def _padded(self, now: Forward, rows: Tensor) -> Tensor:
        if now.tokens == sum(self.groups):
            return rows
        blocks = torch.split(rows, list(self.groups))
        return torch.cat([pad_rows(block, now.sizes.group) for block in blocks])

    # ---- proof -------------------------------------------------------------------------------------------------------

    def prove(self, index: int, layer: Any, carries: Callable[[Any, Hook], bool]) -> None:
        """Raises RefusedError unless the hooks stand in the paths of a layer that was built."""
        for name, boundary, hook in (
            ("attn_boundary", "attn_in", self.around_attention_input),
            ("ffn_boundary", "mlp_in", self.around_mlp_input),
        ):
            for variant, path in getattr(layer, name).plan.paths.items():
                step = path.entry.prepare.keywords["step"].func
                over_dp = name == "attn_boundary" or path.returns_over_dp
                if variant.name != "ORDINARY" or not carries(step, hook) or not over_dp:
                    raise RefusedError(
                        f"layer {index} {boundary} does not run the planned op on {variant.name} batches",
                        field="layers",
                    )


def _blocks(rows: Tensor, size: int, counts: Any) -> Tensor:
    """The first `counts[i]` rows of every block of `size` rows, one behind the other."""
    return torch.cat([rows[i * size : i * size + count] for i, count in enumerate(counts)])


__all__ = ["AttentionDpHooks"]
