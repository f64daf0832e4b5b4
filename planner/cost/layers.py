"""Compute of a layer that no choice of communication changes: projections, attention, MLP or experts, head.

Rows and heads are a rank's: attention works on its DP group's rows with heads / attn_tp, the MLP on all T rows with
1/tp of its width. Sources: the shapes are those of the Hugging Face modules; the rates are the hardware file's.
"""

from __future__ import annotations

import math

from ..descriptions.setup import Setup
from ..strategy.layout import ALL_TO_ALL
from ..strategy.words import AttentionKind, MlpKind
from .attention import AttentionCosts
from .estimate import Estimate
from .kernels import NOTHING
from .op_costs import OpCosts
from .workload import Work


class LayerCosts:
    """Prices of the layout-independent parts of a layer."""

    def __init__(self, setup: Setup, costs: OpCosts) -> None:
        self._model, self._p, self._collectives = setup.model, setup.parallelism, costs.collectives
        self._device, self._of = costs.device, costs.device_of
        self._backend = setup.hardware.backend
        self._attention = AttentionCosts(setup, costs)
        self._activation = setup.deployment.dtypes.activations

    def attention(self, kind: AttentionKind, work: Work) -> list[Estimate]:
        """Attention of one layer, without the projections that a layout can move (q_a, kv_a)."""
        return self._attention.of(kind, work)

    def mlp(self, kind: MlpKind, work: Work) -> list[Estimate]:
        """MLP or experts of one layer."""
        return self._experts(work) if kind == "moe" else self._dense(self._model.intermediate_size or 0, work)

    def head(self, work: Work) -> list[Estimate]:
        """The LM head, sharded over the vocabulary; of an MTP layer also the projection before it, on every rank."""
        hidden, columns = self._model.hidden_size, math.ceil(self._model.vocab_size / self._p.tp)
        drafted = [self._device.gemm(work.tokens, 2 * hidden, hidden)] if self._model.takes_target_rows else []
        return [*drafted, self._device.gemm(work.logits, hidden, columns)]

    def _dense(self, width: int, work: Work) -> list[Estimate]:
        columns, device = width // self._p.tp, self._of("dense_mlp")
        return [
            device.gemm(work.tokens, self._model.hidden_size, 2 * columns),
            device.gemm(work.tokens, columns, self._model.hidden_size),
        ]

    def _experts(self, work: Work) -> list[Estimate]:
        m, p, device = self._model, self._p, self._of("experts")
        assert m.num_experts and m.num_experts_per_tok and m.moe_intermediate_size
        all_to_all = p.moe_backend == ALL_TO_ALL and p.tp > 1
        rows = float(p.rows(work.tokens, "token_sharded")) if all_to_all else float(work.tokens)
        costs = [device.gemm(rows, m.hidden_size, m.num_experts)]
        local = m.num_experts // p.ep
        columns = m.moe_intermediate_size // (1 if all_to_all else p.tp // p.ep)
        routed = work.tokens * m.num_experts_per_tok / p.ep  # balanced routing
        # Experts that get at least one token, if the router spreads them evenly.
        busy = local * (1.0 - (1.0 - m.num_experts_per_tok / m.num_experts) ** work.tokens)
        if busy > 0:
            costs.append(device.gemm(routed / busy, m.expert_hidden_size, 2 * columns, batch=busy))
            costs.append(device.gemm(routed / busy, columns, m.expert_hidden_size, batch=busy))
        if m.routed_expert_hidden_size is not None:  # to the experts' width and back
            costs += [device.gemm(rows, m.hidden_size, m.expert_hidden_size)] * 2
        if m.shared_expert_intermediate_size:
            shared = m.shared_expert_intermediate_size // (1 if all_to_all else p.tp)
            of_shared = self._of("shared_experts")
            costs.append(of_shared.gemm(rows, m.hidden_size, 2 * shared))
            costs.append(of_shared.gemm(rows, shared, m.hidden_size))
        if all_to_all:
            costs += self._dispatch_and_combine(rows)
        return costs or [NOTHING]

    def _dispatch_and_combine(self, rows: float) -> list[Estimate]:
        m = self._model
        assert m.num_experts_per_tok
        sent = rows * m.num_experts_per_tok * m.expert_hidden_size
        quantized = self._of("experts").quantizes_rows  # 8-bit experts take 8-bit rows; results come back unquantised
        dispatched = sent * (1 if quantized else self._device.activation_bytes)
        combined = sent * self._device.activation_bytes
        exchange = self._collectives.collective
        return [
            exchange("all_to_all", self._backend, "int8" if quantized else self._activation, "tp", dispatched),
            exchange("all_to_all", self._backend, self._activation, "tp", combined),
        ]
