"""A model, in Hugging Face's own field names; layer kinds and widths follow from them.

Only what changes the cost or the legality of communication is kept of a config.json.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, model_validator

from ..strategy.bounds import MAX_LAYERS
from ..strategy.layout import ALL_TO_ALL, LayerShape, Parallelism
from ..strategy.words import AttentionKind, MlpKind
from .base import Count, FieldError, PositiveInt, Spec, Text
from .quantization import Quantization

MODEL_SCHEMA = "commplan/model/v1"


class Model(Spec):
    """One decoder-only transformer, pre-norm, with the residual stream that all Qwen and DeepSeek layers share."""

    schema_: Literal["commplan/model/v1"] = Field(alias="schema")
    name: Text
    architecture: Text
    source: Text | None = None

    hidden_size: PositiveInt
    num_hidden_layers: Annotated[int, Field(gt=0, le=MAX_LAYERS, strict=True)]
    vocab_size: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt
    tie_word_embeddings: StrictBool = False

    # dense MLP (of the layers that have one)
    intermediate_size: PositiveInt | None = None

    # mixture of experts
    num_experts: PositiveInt | None = None
    num_experts_per_tok: PositiveInt | None = None
    moe_intermediate_size: PositiveInt | None = None
    shared_expert_intermediate_size: Count = 0
    dense_layers: tuple[Count, ...] = ()  # of a MoE model: the layers whose MLP is dense

    # multi-head latent attention
    q_lora_rank: PositiveInt | None = None
    kv_lora_rank: PositiveInt | None = None
    qk_nope_head_dim: PositiveInt | None = None
    qk_rope_head_dim: PositiveInt | None = None
    v_head_dim: PositiveInt | None = None
    index_head_dim: PositiveInt | None = None
    index_n_heads: PositiveInt | None = None
    index_topk: PositiveInt | None = None

    # linear attention (of the layers that `linear_attention_layers` names)
    linear_attention_layers: tuple[Count, ...] = ()
    linear_num_key_heads: PositiveInt | None = None
    linear_num_value_heads: PositiveInt | None = None
    linear_key_head_dim: PositiveInt | None = None
    linear_value_head_dim: PositiveInt | None = None
    linear_conv_kernel_dim: PositiveInt | None = None

    # of the published checkpoint; null where its weights are not quantised
    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _complete(self) -> Model:
        if self.num_experts is not None:
            self._need("num_experts_per_tok", "moe_intermediate_size")
            if (self.num_experts_per_tok or 0) > self.num_experts:
                message = f"more than num_experts {self.num_experts}"
                raise FieldError("num_experts_per_tok", message, self.num_experts_per_tok)
            if self.dense_layers:
                self._need("intermediate_size")
        else:
            self._need("intermediate_size")
        if self.kv_lora_rank is not None:
            self._need("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        if self.index_head_dim is not None:
            self._need("index_n_heads", "index_topk", "q_lora_rank")
        if self.linear_attention_layers:
            self._need("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
        if self.num_attention_heads % self.num_key_value_heads:
            raise FieldError(
                "num_key_value_heads",
                f"does not divide num_attention_heads {self.num_attention_heads}",
                self.num_key_value_heads,
            )
        for field in ("dense_layers", "linear_attention_layers"):
            for layer in getattr(self, field):
                if layer >= self.num_hidden_layers:
                    raise FieldError(field, f"the model's layers are 0-{self.num_hidden_layers - 1}", layer)
        return self

    def _need(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is None:
                raise FieldError(name, f"is missing for a {self.architecture}", kind="missing_key")

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
        """Columns of the projections that make latents: q_a, kv_a, V3.2's wk and weights_proj; none without q_a."""
        if self.q_lora_rank is None or self.kv_lora_rank is None or self.qk_rope_head_dim is None:
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
        """`full_attention` or `linear_attention`."""
        return "linear_attention" if layer in self.linear_attention_layers else "full_attention"

    def layer_shape(self, layer: int, parallelism: Parallelism) -> LayerShape:
        """What the layout algebra needs to know of a layer."""
        moe = self.mlp_kind(layer) == "moe"
        return LayerShape(
            all_to_all=moe and parallelism.moe_backend == ALL_TO_ALL and parallelism.tp > 1,
            has_latent=self.latent_width > 0,
            ends_stage=parallelism.ends_stage(layer, self.num_hidden_layers),
        )
