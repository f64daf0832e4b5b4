"""A model, in Hugging Face's own field names; layer kinds and widths follow from them.

Only what changes the cost or the legality of communication is kept of a config.json.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, StrictBool, model_validator

from ..strategy.bounds import MAX_LAYERS
from ..strategy.layout import ALL_TO_ALL, LayerShape, Parallelism
from ..strategy.words import AttentionKind, MlpKind
from .base import Count, FieldError, PositiveInt, Spec, Text, raise_all
from .quantization import Quantization

MODEL_SCHEMA = "commplan/model/v1"

PAIRS = 4
COMPRESSED: dict[int, AttentionKind] = {
    0: "sliding_attention",
    PAIRS: "compressed_sparse_attention",
    128: "heavily_compressed_attention",
}
"""Kinds of DeepSeek-V4's layers by how many positions one entry of the cache stands for."""


class Model(Spec):
    """One decoder-only transformer, pre-norm: every layer is attention and an MLP, and each adds to the residual.

    assumed  what no class of transformers and no paper confirms of this description, sentence by sentence
    """

    schema_: Literal["commplan/model/v1"] = Field(alias="schema")
    name: Text
    architecture: Text
    source: Text | None = None
    assumed: tuple[Text, ...] = ()

    hidden_size: PositiveInt
    num_hidden_layers: Annotated[int, Field(gt=0, le=MAX_LAYERS, strict=True)]
    vocab_size: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt
    tie_word_embeddings: StrictBool = False
    attention_output_gate: StrictBool = False  # of full attention: as wide as what it gates

    # layers that attend to a window, or to a chunk of that size
    sliding_attention_layers: tuple[Count, ...] = ()
    sliding_window: PositiveInt | None = None
    sliding_num_key_value_heads: PositiveInt | None = None  # null: as many as the others have

    # dense MLP (of the layers that have one)
    intermediate_size: PositiveInt | None = None

    # mixture of experts
    num_experts: PositiveInt | None = None
    num_experts_per_tok: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None
    shared_expert_intermediate_size: Count = 0
    dense_layers: tuple[Count, ...] = ()  # of a MoE model: the layers whose MLP is dense
    routed_expert_hidden_size: PositiveInt | None = None  # experts between projections to and from this width

    # multi-head latent attention
    q_lora_rank: PositiveInt | None = None
    kv_lora_rank: PositiveInt | None = None
    qk_nope_head_dim: PositiveInt | None = None
    qk_rope_head_dim: PositiveInt | None = None
    v_head_dim: PositiveInt | None = None  # without MLA: of values, where they are not head_dim wide

    # sparse attention: an index keeps positions for each query
    index_head_dim: PositiveInt | None = None
    index_n_heads: PositiveInt | None = None
    index_topk: PositiveInt | None = None
    index_layers: tuple[Count, ...] = ()  # that have an index; none named: all. With MLA the others reuse it

    # DeepSeek-V4's attention: one key-value head, pooled over positions; a grouped low-rank output projection
    compress_ratios: tuple[Count, ...] = ()  # by layer: 0 a window alone, 4 with an index, 128 without
    o_groups: PositiveInt | None = None
    o_lora_rank: PositiveInt | None = None

    # several residual streams: hyper-connections (V4), or what each block of layers left behind (Kimi-K3)
    hc_mult: PositiveInt | None = None
    attn_res_block_size: PositiveInt | None = None

    # linear attention (of the layers that `linear_attention_layers` names)
    linear_attention_layers: tuple[Count, ...] = ()
    linear_num_key_heads: PositiveInt | None = None
    linear_num_value_heads: PositiveInt | None = None
    linear_key_head_dim: PositiveInt | None = None
    linear_value_head_dim: PositiveInt | None = None
    linear_conv_kernel_dim: PositiveInt | None = None
    linear_decay_rank: PositiveInt | None = None  # Kimi's delta attention: the decay of each key channel, by low rank
    linear_gate_rank: PositiveInt | None = None  # of the output's gate; null: as wide as what it gates

    # MTP layers, which draft for this model; and whether this is such a draft, that takes the target's rows too
    num_nextn_predict_layers: Count = 0
    takes_target_rows: StrictBool = False

    # of the published checkpoint; null where its weights are not quantised
    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _complete(self) -> Model:
        why = f"is missing for a {self.architecture}"
        raise_all([FieldError(name, why, kind="missing_key") for name in self._lacks()])
        if self.num_experts is not None and (self.num_experts_per_tok or 0) > self.num_experts:
            message = f"more than num_experts {self.num_experts}"
            raise FieldError("num_experts_per_tok", message, self.num_experts_per_tok)
        if self.compress_ratios:
            self._check_compression()
        if self.num_attention_heads % self.num_key_value_heads:
            raise FieldError(
                "num_key_value_heads",
                f"does not divide num_attention_heads {self.num_attention_heads}",
                self.num_key_value_heads,
            )
        for field in ("dense_layers", "linear_attention_layers", "sliding_attention_layers", "index_layers"):
            for layer in getattr(self, field):
                if layer >= self.num_hidden_layers:
                    raise FieldError(field, f"the model's layers are 0-{self.num_hidden_layers - 1}", layer)
        return self

    def _lacks(self) -> list[str]:
        """Fields that must be there, by what else is there."""
        needed: list[str] = []
        if self.num_experts is not None:
            needed += ["num_experts_per_tok", "moe_intermediate_size"]
        if self.num_experts is None or self.dense_layers:
            needed += ["intermediate_size"]
        if self.kv_lora_rank is not None:
            needed += ["qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"]
        if self.index_head_dim is not None:
            needed += ["index_n_heads", "index_topk", *(["q_lora_rank"] if self.is_mla else [])]
        if self.sliding_attention_layers:
            needed += ["sliding_window"]
        if self.compress_ratios:
            needed += ["q_lora_rank", "o_groups", "o_lora_rank", "sliding_window"]
        if PAIRS in self.compress_ratios:
            needed += ["index_head_dim", "index_n_heads", "index_topk"]
        if self.linear_attention_layers:
            needed += ["linear_num_key_heads", "linear_num_value_heads"]
            needed += ["linear_key_head_dim", "linear_value_head_dim"]
        return [name for name in dict.fromkeys(needed) if getattr(self, name) is None]

    def _check_compression(self) -> None:
        for index, ratio in enumerate(self.compress_ratios):
            if ratio not in COMPRESSED:
                accepted = ", ".join(map(str, COMPRESSED))
                raise FieldError(f"compress_ratios[{index}]", f"{accepted} are accepted", ratio)
        if len(self.compress_ratios) != self.num_hidden_layers:
            message = f"one for each of {self.num_hidden_layers} layers is expected"
            raise FieldError("compress_ratios", message, len(self.compress_ratios))

    @property
    def is_mla(self) -> bool:
        """Multi-head latent attention."""
        return self.kv_lora_rank is not None

    @property
    def is_moe(self) -> bool:
        """Has layers with experts."""
        return self.num_experts is not None

    @property
    def latent_widths(self) -> tuple[int, ...]:
        """Columns of the projections that make latents: q_a, kv_a, V3.2's wk and weights_proj; none without q_a, nor
        where some layers have linear attention: a plan gathers latents in all layers or in none."""
        if self.q_lora_rank is None or self.kv_lora_rank is None or self.qk_rope_head_dim is None:
            return ()
        if self.linear_attention_layers:
            return ()
        widths = [self.q_lora_rank, self.kv_lora_rank + self.qk_rope_head_dim]
        if self.index_head_dim is not None and self.index_n_heads is not None:
            widths += [self.index_head_dim, self.index_n_heads]
        return tuple(widths)

    @property
    def latent_width(self) -> int:
        """Columns of a row's latents, side by side; 0 without q_lora_rank."""
        return sum(self.latent_widths)

    def mlp_kind(self, layer: int) -> MlpKind:
        """`moe` or `dense`."""
        return "moe" if self.is_moe and layer not in self.dense_layers else "dense"

    def attention_kind(self, layer: int) -> AttentionKind:
        """What the layer's attention attends to."""
        if self.compress_ratios:
            return COMPRESSED[self.compress_ratios[layer]]
        if layer in self.linear_attention_layers:
            return "linear_attention"
        if layer in self.sliding_attention_layers:
            return "sliding_attention"
        if self.index_head_dim is None:
            return "full_attention"
        if not self.index_layers or layer in self.index_layers:
            return "indexed_attention"
        return "reused_index_attention" if self.is_mla else "full_attention"

    def key_value_heads(self, kind: AttentionKind) -> int:
        """Key-value heads of grouped attention of this kind."""
        sliding = self.sliding_num_key_value_heads if kind == "sliding_attention" else None
        return sliding or self.num_key_value_heads

    @property
    def value_head_dim(self) -> int:
        """Width of a head's values in grouped attention."""
        return self.v_head_dim or self.head_dim

    @property
    def expert_hidden_size(self) -> int:
        """Width of the rows that experts take and return."""
        return self.routed_expert_hidden_size or self.hidden_size

    @property
    def residual_streams(self) -> int:
        """Rows of hidden width between layers, for each token: at most so many."""
        if self.attn_res_block_size is not None:
            return math.ceil(self.num_hidden_layers / self.attn_res_block_size) + 1  # the blocks, and the embedding
        return self.hc_mult or 1

    def drafts(self) -> Model:
        """The MTP layers as a model: each is a layer like the last, without linear attention, behind a projection of
        the target's row beside the token's own; embedding and head are the target's."""
        count = self.num_nextn_predict_layers
        whole: dict[str, object] = {"sliding_attention_layers": (), "linear_attention_layers": (), "index_layers": ()}
        return self.model_copy(
            update=whole
            | {
                "name": f"{self.name} MTP",
                "num_hidden_layers": count,
                "dense_layers": (),
                "compress_ratios": (0,) * count if self.compress_ratios else (),
                "num_nextn_predict_layers": 0,
                "takes_target_rows": True,
            }
        )

    def layer_shape(self, layer: int, parallelism: Parallelism) -> LayerShape:
        """What the layout algebra needs to know of a layer."""
        moe = self.mlp_kind(layer) == "moe"
        return LayerShape(
            all_to_all=moe and parallelism.moe_backend == ALL_TO_ALL and parallelism.tp > 1,
            has_latent=self.latent_width > 0,
            streams=self.residual_streams,
            ends_stage=parallelism.ends_stage(layer, self.num_hidden_layers),
        )
