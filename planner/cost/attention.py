"""Compute of attention by its kind: projections, the core, an index. Rows and heads are a rank's."""

from __future__ import annotations

from collections.abc import Callable

from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.model import COMPRESSED, PAIRS
from ..descriptions.setup import Setup
from ..strategy.words import AttentionKind
from .estimate import Estimate
from .op_costs import OpCosts
from .workload import Work

# Fewest rows per request from which MLA expands its latents (prefill) instead of attending in latent space (decode).
_MLA_EXPANDS_FROM = 16

_RATIOS = {kind: ratio for ratio, kind in COMPRESSED.items()}


class AttentionCosts:
    """Prices of the attention of a layer, without the projections that a layout can move (q_a, kv_a)."""

    def __init__(self, setup: Setup, costs: OpCosts) -> None:
        self._model, self._p, self._device = setup.model, setup.parallelism, costs.device_of("attention")
        self._cache_bytes = DTYPE_BYTES[setup.deployment.dtypes.kv_cache]

    def of(self, kind: AttentionKind, work: Work) -> list[Estimate]:
        """Attention of one layer."""
        if kind == "linear_attention":
            return self._linear(work)
        by_model: Callable[[AttentionKind, Work], list[Estimate]] = self._grouped
        if self._model.compress_ratios:
            by_model = self._compressed
        elif self._model.is_mla:
            by_model = self._latent
        return by_model(kind, work)

    def _rows(self, work: Work) -> float:
        return self._p.rows(work.tokens, self._p.attention_layout)

    def _grouped(self, kind: AttentionKind, work: Work) -> list[Estimate]:
        m, p, device = self._model, self._p, self._device
        rows, heads = self._rows(work), m.num_attention_heads // p.attn_tp
        kv_heads = max(1, m.key_value_heads(kind) // p.attn_tp)  # fewer heads than ranks: replicated, and paid for
        share, both = 1 / p.attn_dp, m.head_dim + m.value_head_dim
        seen = work.windowed(m.sliding_window) if kind == "sliding_attention" else work
        attended, cached = seen.attended, seen.cached
        if kind == "indexed_attention" and m.index_topk is not None:
            attended, cached = work.capped(m.index_topk), min(cached, float(work.tokens) * m.index_topk)
        gate = heads * m.value_head_dim if m.attention_output_gate else 0
        read = cached * share * kv_heads * both * self._cache_bytes
        return [
            device.gemm(rows, m.hidden_size, heads * m.head_dim + kv_heads * both + gate),
            *(self._block_index(work, rows, share) if kind == "indexed_attention" else ()),
            device.attention(2.0 * attended * share * heads * both, read),
            device.gemm(rows, heads * m.value_head_dim, m.hidden_size),
        ]

    def _block_index(self, work: Work, rows: float, share: float) -> list[Estimate]:
        """MiniMax-M3's index: a head for each key-value head, its own queries and one key from the hidden rows."""
        m = self._model
        assert m.index_head_dim is not None and m.index_n_heads is not None
        heads = max(1, m.index_n_heads // self._p.attn_tp)
        read = work.cached * share * m.index_head_dim * self._cache_bytes
        return [
            self._device.gemm(rows, m.hidden_size, (heads + 1) * m.index_head_dim),
            self._device.scores(2.0 * work.attended * share * heads * m.index_head_dim, read),
        ]

    def _latent(self, kind: AttentionKind, work: Work) -> list[Estimate]:
        m, p, device = self._model, self._p, self._device
        rank, nope, rope, v = m.kv_lora_rank, m.qk_nope_head_dim, m.qk_rope_head_dim, m.v_head_dim
        assert rank is not None and nope is not None and rope is not None and v is not None
        rows, heads, share = self._rows(work), m.num_attention_heads // p.attn_tp, 1 / p.attn_dp
        attended = work.capped(m.index_topk) * share
        costs = []
        if m.q_lora_rank is None:  # a full-rank q_proj, and a kv_a that every rank repeats
            costs.append(device.gemm(rows, m.hidden_size, heads * (nope + rope)))
            costs.append(device.gemm(rows, m.hidden_size, rank + rope))
        else:
            if not m.latent_width:  # the projections to latents stay where they are
                costs.append(device.gemm(rows, m.hidden_size, m.q_lora_rank + rank + rope))
            costs.append(device.gemm(rows, m.q_lora_rank, heads * (nope + rope)))
        if m.attention_output_gate:
            costs.append(device.gemm(rows, m.hidden_size, heads * v))
        read = work.cached * share * (rank + rope) * self._cache_bytes
        if work.requests and work.tokens / work.requests >= _MLA_EXPANDS_FROM:
            costs.append(device.gemm(work.cached * share, rank, heads * (nope + v)))
            costs.append(device.attention(2.0 * attended * heads * (nope + rope + v), read))
        else:
            costs.append(device.gemm(rows, nope, rank, batch=heads))
            costs.append(device.attention(2.0 * attended * heads * (2 * rank + rope), read))
            costs.append(device.gemm(rows, rank, v, batch=heads))
        costs.append(device.gemm(rows, heads * v, m.hidden_size))
        return costs + (self._indexer(work, rows, share) if kind == "indexed_attention" else [])

    def _indexer(self, work: Work, rows: float, share: float, ratio: int = 1) -> list[Estimate]:
        """The V3.2 indexer scores every cached position, on every rank alike; V4's every `ratio` of them."""
        m = self._model
        assert m.index_head_dim is not None and m.index_n_heads is not None and m.q_lora_rank is not None
        width, device = m.index_n_heads * m.index_head_dim, self._device
        read = work.cached / ratio * share * m.index_head_dim
        return [
            device.gemm(rows, m.q_lora_rank, width),
            device.scores(2.0 * work.attended / ratio * share * width, read),
        ]

    def _compressed(self, kind: AttentionKind, work: Work) -> list[Estimate]:
        """DeepSeek-V4: one key-value head, a window of it as it is, the rest pooled over `ratio` positions."""
        m, p, device = self._model, self._p, self._device
        assert m.q_lora_rank is not None and m.o_groups is not None and m.o_lora_rank is not None
        rows, heads, share = self._rows(work), m.num_attention_heads // p.attn_tp, 1 / p.attn_dp
        near, ratio, width = work.windowed(m.sliding_window), _RATIOS[kind], m.head_dim
        attended, cached, pooled = near.attended, near.cached, 0
        if ratio:
            pooled = (2 if ratio == PAIRS else 1) * 2 * width  # keys and the gate that weighs them, two series of pairs
            far = Work(work.tokens, work.attended / ratio, work.cached / ratio, work.requests, work.logits)
            kept = m.index_topk if ratio == PAIRS else None
            attended += far.capped(kept)
            cached += far.cached if kept is None else min(far.cached, float(work.tokens) * kept)
        costs = [
            device.gemm(rows, m.hidden_size, m.q_lora_rank + width + pooled),  # on every rank alike
            device.gemm(rows, m.q_lora_rank, heads * width),
        ]
        if ratio == PAIRS:
            assert m.index_head_dim is not None and m.index_n_heads is not None
            costs.append(device.gemm(rows, m.hidden_size, 4 * m.index_head_dim + m.index_n_heads))
            costs += self._indexer(work, rows, share, ratio)
        groups = m.o_groups // p.attn_tp
        return [
            *costs,
            device.attention(4.0 * attended * share * heads * width, cached * share * width * self._cache_bytes),
            device.gemm(rows, m.num_attention_heads * width // m.o_groups, m.o_lora_rank, batch=groups),
            device.gemm(rows, groups * m.o_lora_rank, m.hidden_size),
        ]

    def _linear(self, work: Work) -> list[Estimate]:
        """Gated delta rule: projections, and per token an update and a read of the [key, value] state of each head."""
        m, p, device = self._model, self._p, self._device
        key_heads, value_heads = m.linear_num_key_heads, m.linear_num_value_heads
        key_dim, value_dim = m.linear_key_head_dim, m.linear_value_head_dim
        assert key_heads and value_heads and key_dim and value_dim
        rows = self._rows(work)
        keys, values = key_heads * key_dim // p.attn_tp, value_heads * value_dim // p.attn_tp
        state = value_heads // p.attn_tp * key_dim * value_dim
        operations = 6.0 * rows * state
        moved = 2.0 * 4 * state * work.requests / p.attn_dp  # the fp32 state is read and written once per request
        gate = values if m.linear_gate_rank is None else 0
        costs = [device.gemm(rows, m.hidden_size, 2 * keys + values + gate + 2 * value_heads // p.attn_tp)]
        for rank, columns in ((m.linear_decay_rank, keys), (m.linear_gate_rank, values)):
            if rank is not None:
                costs += [device.gemm(rows, m.hidden_size, rank), device.gemm(rows, rank, columns)]
        return [*costs, device.attention(operations, moved), device.gemm(rows, values, m.hidden_size)]
