"""Activation bytes per rank while an op runs: both streams, its result, its workspace, and what the layer holds inside.

The peak of a plan is the largest of these, so a limit removes ops one by one. A kernel of commplan's own has a
workspace of symmetric memory, in two halves that calls use in turn. It stays between calls; where ops of a plan have
workspaces of different kinds (for rows in INT8 and not, for latents and not), the peak holds that of one.
"""

from __future__ import annotations

from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.setup import Setup
from ..strategy.layout import IN_BOUNDARIES, REPLICATED, LayerShape, State, group_of, sum_group
from ..strategy.ops import Op

_HALVES = 2


class MemoryCosts:
    """Peak activation bytes per rank."""

    def __init__(self, setup: Setup) -> None:
        self._setup, self._p = setup, setup.parallelism
        self._element = DTYPE_BYTES[setup.deployment.dtypes.activations]

    def peak_bytes(
        self, boundary: str, op: Op, before: State | None, after: State, shape: LayerShape, tokens: int
    ) -> int:
        """Bytes that a rank holds at most while `op` runs at `boundary`, and in the block that follows an `_in`."""
        p, hidden_size = self._p, self._setup.model.hidden_size

        def stream(layout: str) -> float:
            return p.rows(tokens, layout) * hidden_size * self._element  # type: ignore[arg-type]

        residual = stream(before.residual) * shape.streams if before else 0.0
        if boundary in IN_BOUNDARIES:
            assert before is not None
            consumed = stream(after.hidden)
            if op.kind.latent:  # the block takes the latents themselves
                consumed *= self._setup.model.latent_width / hidden_size
            moving = stream(before.hidden) + (consumed if op.kind.is_collective else 0.0)
            if op.kind.is_collective and self._is_one_kernel(op):
                size = p.group_size(group_of(boundary, op, before, shape, p))
                moving += _HALVES * 2 * (size - 1) / size * consumed
            return int(residual + max(moving, consumed + self._inside(boundary, shape, tokens)))
        produced = after.hidden
        if sum_group(boundary, shape, p) is not None:
            produced = REPLICATED if boundary == "mlp_out" else p.attention_layout
        partial = stream(produced)
        return int(residual + partial + stream(after.hidden) + self._workspace(boundary, op, before, shape, partial))

    def _inside(self, boundary: str, shape: LayerShape, tokens: int) -> float:
        """The widest intermediate of the block that follows."""
        m, p = self._setup.model, self._p
        if boundary == "head_in":
            return 0.0
        if boundary == "attn_in":
            rows, heads = p.rows(tokens, p.attention_layout), m.num_attention_heads // p.attn_tp
            kv = max(1, m.num_key_value_heads // p.attn_tp)
            width = m.latent_width + heads * m.head_dim + kv * (m.head_dim + m.value_head_dim)
            return rows * width * self._element
        rows = p.rows(tokens, shape.mlp_layout())
        if not m.is_moe or m.num_experts_per_tok is None or m.moe_intermediate_size is None:
            return rows * 2 * ((m.intermediate_size or 0) // p.tp) * self._element
        # Routed rows with their up-projections; an all-to-all brings each rank its share of all routed rows.
        width = m.expert_hidden_size + 2 * m.moe_intermediate_size // (1 if shape.all_to_all else p.tp // p.ep)
        return rows * m.num_experts_per_tok * width * self._element / (1 if shape.all_to_all else p.ep)

    def _is_one_kernel(self, op: Op) -> bool:
        return op.impl is not None and self._setup.executor.impls[op.impl].kind == "one_kernel"

    def _workspace(self, boundary: str, op: Op, before: State | None, shape: LayerShape, partial: float) -> float:
        if op.kind.is_none:
            return 0.0
        size = self._p.group_size(group_of(boundary, op, before, shape, self._p))
        elements = partial / self._element
        wire, way = op.wire, op.way
        value_bytes = self._element if wire is None else wire.value_bytes
        if self._is_one_kernel(op):
            times = 2 * (size - 1) / size if way.peers == "shards" else size - 1
            if way.peers == "dp_local" and boundary == "mlp_out":  # of the rows of all groups
                times /= self._p.attn_dp
            return _HALVES * times * elements * value_bytes
        held = way.workspace
        if op.impl is not None and self._setup.executor.impls[op.impl].is_composed:
            width = self._setup.model.hidden_size  # one message and its copies, scales inside; sums stay in registers
            message = partial if wire is None else elements / width * wire.row_bytes(width)
            return message * (held.values + held.values_per_rank * size)
        values = (held.values + held.values_per_rank * size) * value_bytes
        fp32 = (held.fp32 + held.fp32_per_rank * size) * 4
        return elements * (values + fp32) + partial * held.shards / size
