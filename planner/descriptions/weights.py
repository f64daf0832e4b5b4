"""The weights that a rank holds, matrix by matrix: what memory, quantisation blocks and parameter counts go by.

Shapes are those of the Hugging Face modules, sharded as the layout algebra has it: embedding and head over the
vocabulary, attention over a DP group with key-value heads repeated where there are fewer than ranks, latents and router
on every rank, MLPs over all ranks, experts over ep and what is left of tp.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ..strategy.layout import ALL_TO_ALL, Parallelism
from ..strategy.words import AttentionKind, MlpKind, WeightPart
from .model import Model


@dataclass(frozen=True)
class Matrix:
    """Weights of one shape on one rank.

    field    of the model, which the sharded dim follows from
    rows     output features that a rank holds; `columns` input features
    count    how many of them a rank holds, over all layers
    sharded  the dim that is split, over `ranks`
    plain    never quantised: embedding, head, router, norms, what is no GEMM
    """

    part: WeightPart
    field: str
    rows: int
    columns: int
    count: int = 1
    sharded: Literal["rows", "columns"] | None = None
    ranks: int = 1
    plain: bool = False

    @property
    def parameters(self) -> int:
        """Weights of all of them."""
        return self.rows * self.columns * self.count


def matrices(model: Model, p: Parallelism, layers: int | None = None, stage: range | None = None) -> Iterator[Matrix]:
    """What a rank holds of the model, of its first layers, or of a pipeline stage's layers.

    The first stage has the embedding, the last one the head and the norm before it: a tied head is a copy there.
    """
    rows = math.ceil(model.vocab_size / p.tp)
    held = stage if stage is not None else range(layers or model.num_hidden_layers)
    is_first, is_last = held.start == 0, stage is None or held.stop == model.num_hidden_layers
    if is_first:
        yield Matrix("embedding", "vocab_size", rows, model.hidden_size, 1, "rows", p.tp, plain=True)
    if is_last and not (is_first and model.tie_word_embeddings):
        yield Matrix("head", "vocab_size", rows, model.hidden_size, 1, "rows", p.tp, plain=True)
    yield Matrix("norms", "hidden_size", 1, model.hidden_size, 2 * len(held) + is_last, plain=True)
    if model.hc_mult is not None:  # by which streams are mixed, at both blocks of a layer
        of_one = (2 + model.hc_mult) * model.hc_mult
        yield Matrix("norms", "hc_mult", of_one, model.hc_mult * model.hidden_size, 2 * len(held), plain=True)
        if is_last:  # before the head
            yield Matrix("norms", "hc_mult", model.hc_mult, model.hc_mult * model.hidden_size, plain=True)
    if model.takes_target_rows:
        yield Matrix("head", "hidden_size", model.hidden_size, 2 * model.hidden_size, plain=True)
    attention: Counter[AttentionKind] = Counter(model.attention_kind(layer) for layer in held)
    mlp: Counter[MlpKind] = Counter(model.mlp_kind(layer) for layer in held)
    for kind, count in attention.items():
        yield from _times(_attention(model, p.attn_tp, kind), count)
    for mlp_kind, count in mlp.items():
        of_mlp = _experts(model, p) if mlp_kind == "moe" else _gated(model, "dense_mlp", "intermediate_size", p.tp)
        yield from _times(of_mlp, count)


def parameters(model: Model) -> int:
    """Weights of the whole model."""
    return sum(matrix.parameters for matrix in matrices(model, Parallelism(1)))


def _times(of_a_layer: Iterator[Matrix], count: int) -> Iterator[Matrix]:
    for matrix in of_a_layer:
        yield replace(matrix, count=matrix.count * count)


def _out(field: str, columns: int, rows: int, ranks: int) -> Matrix:
    """Split by output features."""
    return Matrix("attention", field, rows // ranks, columns, 1, "rows", ranks)


def _attention(m: Model, ranks: int, kind: AttentionKind) -> Iterator[Matrix]:
    if kind == "linear_attention":
        return _linear_attention(m, ranks)
    if m.compress_ratios:
        return _compressed(m, ranks, kind)
    return _latent(m, ranks, kind) if m.is_mla else _grouped(m, ranks, kind)


def _grouped(m: Model, ranks: int, kind: AttentionKind) -> Iterator[Matrix]:
    hidden, heads, kv, values = m.hidden_size, m.num_attention_heads, m.key_value_heads(kind), m.value_head_dim
    kv_ranks = min(ranks, kv)  # fewer heads than ranks: each is held several times
    yield _out("num_attention_heads", hidden, heads * m.head_dim, ranks)
    yield _out("num_key_value_heads", hidden, kv * m.head_dim, kv_ranks)
    yield _out("num_key_value_heads", hidden, kv * values, kv_ranks)
    if m.attention_output_gate:
        yield _out("num_attention_heads", hidden, heads * values, ranks)
    yield Matrix("attention", "num_attention_heads", hidden, heads * values // ranks, 1, "columns", ranks)
    if kind == "indexed_attention":  # a query for each key-value head, one key
        width, indexers = m.index_head_dim or 0, m.index_n_heads or 0
        yield _out("index_n_heads", hidden, indexers * width, min(ranks, indexers))
        yield Matrix("attention", "index_head_dim", width, hidden)


def _compressed(m: Model, ranks: int, kind: AttentionKind) -> Iterator[Matrix]:
    """DeepSeek-V4: queries by low rank, one key-value head, an output projection by groups of heads."""
    hidden, width, rank = m.hidden_size, m.num_attention_heads * m.head_dim, m.q_lora_rank or 0
    groups, mixed = m.o_groups or 0, (m.o_groups or 0) * (m.o_lora_rank or 0)
    yield Matrix("attention", "q_lora_rank", rank, hidden)
    yield Matrix("norms", "q_lora_rank", 1, rank, plain=True)
    yield _out("num_attention_heads", rank, width, ranks)
    yield Matrix("attention", "head_dim", m.head_dim, hidden)
    yield Matrix("norms", "head_dim", 1, m.head_dim, plain=True)
    yield _out("o_groups", width // groups, mixed, ranks)
    yield Matrix("attention", "o_groups", hidden, mixed // ranks, 1, "columns", ranks)
    if kind == "sliding_attention":
        return
    series = 2 if kind == "compressed_sparse_attention" else 1
    yield Matrix("attention", "head_dim", series * m.head_dim, hidden, 2)  # keys, and the gate that weighs them
    if kind == "compressed_sparse_attention":
        index, indexers = m.index_head_dim or 0, m.index_n_heads or 0
        yield Matrix("attention", "index_head_dim", 2 * index, hidden, 2)
        yield Matrix("attention", "index_head_dim", indexers * index, rank)
        yield Matrix("attention", "index_n_heads", indexers, hidden, plain=True)


def _latent(m: Model, ranks: int, kind: AttentionKind) -> Iterator[Matrix]:
    rank, nope, rope, v = m.kv_lora_rank or 0, m.qk_nope_head_dim or 0, m.qk_rope_head_dim or 0, m.v_head_dim or 0
    hidden, heads = m.hidden_size, m.num_attention_heads
    if m.q_lora_rank is None:
        yield _out("num_attention_heads", hidden, heads * (nope + rope), ranks)
    else:
        yield Matrix("attention", "q_lora_rank", m.q_lora_rank, hidden)
        yield Matrix("norms", "q_lora_rank", 1, m.q_lora_rank, plain=True)
        yield _out("num_attention_heads", m.q_lora_rank, heads * (nope + rope), ranks)
    yield Matrix("attention", "kv_lora_rank", rank + rope, hidden)
    yield Matrix("norms", "kv_lora_rank", 1, rank, plain=True)
    yield _out("num_attention_heads", rank, heads * (nope + v), ranks)
    yield Matrix("attention", "num_attention_heads", hidden, heads * v // ranks, 1, "columns", ranks)
    if m.attention_output_gate:
        yield _out("num_attention_heads", hidden, heads * v, ranks)
    if kind == "indexed_attention":  # the indexer of V3.2, on every rank
        width, indexers = m.index_head_dim or 0, m.index_n_heads or 0
        yield Matrix("attention", "index_head_dim", indexers * width, m.q_lora_rank or 0)
        yield Matrix("attention", "index_head_dim", width, hidden)
        yield Matrix("attention", "index_n_heads", indexers, hidden, plain=True)


def _linear_attention(m: Model, ranks: int) -> Iterator[Matrix]:
    key_heads, value_heads = m.linear_num_key_heads or 0, m.linear_num_value_heads or 0
    keys, values = key_heads * (m.linear_key_head_dim or 0), value_heads * (m.linear_value_head_dim or 0)
    hidden = m.hidden_size
    yield replace(_out("linear_num_key_heads", hidden, keys, ranks), count=2)
    gated = m.linear_gate_rank is None
    yield replace(_out("linear_num_value_heads", hidden, values, ranks), count=2 if gated else 1)  # and their gate
    if m.linear_gate_rank is not None:
        yield Matrix("attention", "linear_gate_rank", m.linear_gate_rank, hidden)
        yield _out("linear_num_value_heads", m.linear_gate_rank, values, ranks)
    by_head = 2 if m.linear_decay_rank is None else 1  # how much is written, and the decay where it is one of a head
    yield replace(_out("linear_num_value_heads", hidden, value_heads, ranks), count=by_head, plain=True)
    if m.linear_decay_rank is not None:
        yield Matrix("attention", "linear_decay_rank", m.linear_decay_rank, hidden)
        yield _out("linear_num_key_heads", m.linear_decay_rank, keys, ranks)
    convolved = (2 * keys + values) // ranks
    yield Matrix("attention", "linear_conv_kernel_dim", convolved, m.linear_conv_kernel_dim or 0, plain=True)
    yield Matrix("attention", "linear_num_value_heads", hidden, values // ranks, 1, "columns", ranks)


def _gated(m: Model, part: WeightPart, field: str, ranks: int) -> Iterator[Matrix]:
    width = (getattr(m, field) or 0) // ranks
    hidden = m.expert_hidden_size if part == "experts" else m.hidden_size
    yield Matrix(part, field, width, hidden, 2, "rows", ranks)
    yield Matrix(part, field, hidden, width, 1, "columns", ranks)


def _experts(m: Model, p: Parallelism) -> Iterator[Matrix]:
    whole = p.moe_backend == ALL_TO_ALL and p.tp > 1
    experts = m.num_experts or 0
    yield Matrix("router", "num_experts", experts, m.hidden_size, plain=True)
    for matrix in _gated(m, "experts", "moe_intermediate_size", 1 if whole else p.tp // p.ep):
        yield replace(matrix, count=matrix.count * experts // p.ep)
    if m.routed_expert_hidden_size is not None:  # to the experts' width and back, on every rank
        field = "routed_expert_hidden_size"
        yield Matrix("experts", field, m.expert_hidden_size, m.hidden_size, 2, plain=True)
    if m.shared_expert_intermediate_size:
        yield from _gated(m, "shared_experts", "shared_expert_intermediate_size", 1 if whole else p.tp)
