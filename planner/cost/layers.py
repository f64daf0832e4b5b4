"""Compute of a layer that no choice of communication changes: projections, attention, MLP or experts, head.

Rows and heads are a rank's: attention works on its DP group's rows with heads / attn_tp, the MLP on all T rows with
1/tp of its width. Sources: the shapes are those of the Hugging Face modules; the rates are the hardware file's.
"""

from __future__ import annotations

import math

from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.setup import Setup
from ..strategy.layout import ALL_TO_ALL
from ..strategy.words import AttentionKind, MlpKind
from .estimate import Estimate
from .kernels import NOTHING
from .op_costs import OpCosts
from .workload import Work

# Fewest rows per request from which MLA expands its latents (prefill) instead of attending in latent space (decode).
_MLA_EXPANDS_FROM = 16


class LayerCosts:
    """Prices of the layout-independent parts of a layer."""

    def __init__(self, setup: Setup, costs: OpCosts) -> None:
        self._model, self._p, self._collectives = setup.model, setup.parallelism, costs.collectives
        self._device, self._of = costs.device, costs.device_of
        self._backend = setup.hardware.backend
        self._cache_bytes = DTYPE_BYTES[setup.deployment.dtypes.kv_cache]
        self._activation = setup.deployment.dtypes.activations

    def attention(self, kind: AttentionKind, work: Work) -> list[Estimate]:
        """Attention of one layer, without the projections that a layout can move (q_a, kv_a)."""
        if kind == "linear_attention":
            return self._linear_attention(work)
        if self._model.is_mla:
            return self._latent_attention(work)
        return self._grouped_attention(work)

    def mlp(self, kind: MlpKind, work: Work) -> list[Estimate]:
        """MLP or experts of one layer."""
        return self._experts(work) if kind == "moe" else self._dense(self._model.intermediate_size or 0, work)

    def head(self, work: Work) -> list[Estimate]:
        """The LM head, sharded over the vocabulary."""
        columns = math.ceil(self._model.vocab_size / self._p.tp)
        return [self._device.gemm(work.logits, self._model.hidden_size, columns)]

    def _rows(self, work: Work) -> float:
        return self._p.rows(work.tokens, self._p.attention_layout)

    def _grouped_attention(self, work: Work) -> list[Estimate]:
        m, p, device = self._model, self._p, self._of("attention")
        rows, heads = self._rows(work), m.num_attention_heads // p.attn_tp
        kv_heads = max(1, m.num_key_value_heads // p.attn_tp)  # fewer heads than ranks: replicated, and paid for
        share = 1 / p.attn_dp
        operations = 4.0 * work.attended * share * heads * m.head_dim
        read = 2.0 * work.cached * share * kv_heads * m.head_dim * self._cache_bytes
        return [
            device.gemm(rows, m.hidden_size, (heads + 2 * kv_heads) * m.head_dim),
            device.attention(operations, read),
            device.gemm(rows, heads * m.head_dim, m.hidden_size),
        ]

    def _latent_attention(self, work: Work) -> list[Estimate]:
        m, p, device = self._model, self._p, self._of("attention")
        rank, nope, rope, v = m.kv_lora_rank, m.qk_nope_head_dim, m.qk_rope_head_dim, m.v_head_dim
        assert rank is not None and nope is not None and rope is not None and v is not None
        rows, heads, share = self._rows(work), m.num_attention_heads // p.attn_tp, 1 / p.attn_dp
        attended = work.capped(m.index_topk) * share
        costs = []
        if m.q_lora_rank is None:  # a full-rank q_proj, and a kv_a that every rank repeats
            costs.append(device.gemm(rows, m.hidden_size, heads * (nope + rope)))
            costs.append(device.gemm(rows, m.hidden_size, rank + rope))
        else:
            costs.append(device.gemm(rows, m.q_lora_rank, heads * (nope + rope)))
        read = work.cached * share * (rank + rope) * self._cache_bytes
        if work.requests and work.tokens / work.requests >= _MLA_EXPANDS_FROM:
            costs.append(device.gemm(work.cached * share, rank, heads * (nope + v)))
            costs.append(device.attention(2.0 * attended * heads * (nope + rope + v), read))
        else:
            costs.append(device.gemm(rows, nope, rank, batch=heads))
            costs.append(device.attention(2.0 * attended * heads * (2 * rank + rope), read))
            costs.append(device.gemm(rows, rank, v, batch=heads))
        costs.append(device.gemm(rows, heads * v, m.hidden_size))
        return costs + self._indexer(work, rows, share)

    def _indexer(self, work: Work, rows: float, share: float) -> list[Estimate]:
        """The V3.2 indexer scores every cached position, on every rank alike."""
        m = self._model
        if m.index_head_dim is None or m.index_n_heads is None or m.q_lora_rank is None:
            return []
        width, device = m.index_n_heads * m.index_head_dim, self._of("attention")
        read = work.cached * share * m.index_head_dim
        return [
            device.gemm(rows, m.q_lora_rank, width),
            device.scores(2.0 * work.attended * share * width, read),
        ]

    def _linear_attention(self, work: Work) -> list[Estimate]:
        """Gated delta rule: projections, and per token an update and a read of the [key, value] state of each head."""
        m, p, device = self._model, self._p, self._of("attention")
        key_heads, value_heads = m.linear_num_key_heads, m.linear_num_value_heads
        key_dim, value_dim = m.linear_key_head_dim, m.linear_value_head_dim
        assert key_heads and value_heads and key_dim and value_dim
        rows = self._rows(work)
        keys, values = key_heads * key_dim // p.attn_tp, value_heads * value_dim // p.attn_tp
        state = value_heads // p.attn_tp * key_dim * value_dim
        operations = 6.0 * rows * state
        moved = 2.0 * 4 * state * work.requests / p.attn_dp  # the fp32 state is read and written once per request
        return [
            device.gemm(rows, m.hidden_size, 2 * keys + 2 * values + 2 * value_heads // p.attn_tp),
            device.attention(operations, moved),
            device.gemm(rows, values, m.hidden_size),
        ]

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
            costs.append(device.gemm(routed / busy, m.hidden_size, 2 * columns, batch=busy))
            costs.append(device.gemm(routed / busy, columns, m.hidden_size, batch=busy))
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
        sent = rows * m.num_experts_per_tok * m.hidden_size
        quantized = self._of("experts").quantizes_rows  # 8-bit experts take 8-bit rows; results come back unquantised
        dispatched = sent * (1 if quantized else self._device.activation_bytes)
        combined = sent * self._device.activation_bytes
        exchange = self._collectives.collective
        return [
            exchange("all_to_all", self._backend, "int8" if quantized else self._activation, "tp", dispatched),
            exchange("all_to_all", self._backend, self._activation, "tp", combined),
        ]
