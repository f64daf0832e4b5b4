"""The words that steer: what a field that is no free text may say. Each set of them stands here, once.

A word is spelled in files as it is in code, so these are Literals: mypy finds a word that is none, pydantic refuses one
in a file, and strict readers take the tuple beside. Ops, collectives and backends have records (op_kinds.py,
vendors.py), layouts their algebra (layout.py). Imports nothing, because everybody loads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar, get_args

# ---- where -----------------------------------------------------------------------------------------------------------

ForwardMode = Literal["prefill", "mixed", "decode", "target_verify", "draft_extend"]
FORWARD_MODES: tuple[ForwardMode, ...] = get_args(ForwardMode)

GroupName = Literal["tp", "attn_tp", "attn_dp"]
"""All ranks; a DP group of attention; the dp axis."""
GROUPS: tuple[GroupName, ...] = get_args(GroupName)

MlpKind = Literal["dense", "moe"]
AttentionKind = Literal[
    "full_attention",
    "indexed_attention",
    "reused_index_attention",
    "sliding_attention",
    "linear_attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
]
"""Of a layer: attends to every position; to those that its own index keeps, or an earlier layer's index kept;
to a window (or chunk); to a state; to a window and to pairs of compressed positions, with an index or without."""
MoeBackend = Literal["tensor_parallel", "all_to_all"]
MOE_BACKENDS: tuple[MoeBackend, ...] = get_args(MoeBackend)
ModelRole = Literal["target", "draft", "mtp"]
"""`mtp`: the MTP (NextN) layers of the model, which draft for it; `draft`: a model of its own."""
MODEL_ROLES: tuple[ModelRole, ...] = get_args(ModelRole)

WeightPart = Literal["embedding", "head", "norms", "router", "attention", "dense_mlp", "experts", "shared_experts"]
QuantizablePart = Literal["attention", "dense_mlp", "experts", "shared_experts"]
"""Parts of a model by whose weights memory is told; those that a quantised checkpoint may have left as they were."""
WEIGHT_PARTS: tuple[WeightPart, ...] = get_args(WeightPart)

# ---- what an op does -------------------------------------------------------------------------------------------------

Numerics = Literal["exact", "reordered", "quantized"]
"""How far from the plain sum, from the nearest on."""
NUMERICS_CLASSES: tuple[Numerics, ...] = get_args(Numerics)

ResidualRule = Literal["fold", "gather"]
"""How a finer residual reaches the rows of a sum: carried in it, or gathered apart."""
RESIDUAL_RULES: tuple[ResidualRule, ...] = get_args(ResidualRule)

ScaleGroup = Literal["token", "32", "64", "128", "256"]
"""Columns that share a scale where a sum is quantised: a whole row, or so many of one."""
SCALE_GROUPS: tuple[ScaleGroup, ...] = get_args(ScaleGroup)

ImplKind = Literal["library", "peer_to_peer", "one_kernel", "composed"]
"""Collectives of a library; fused kernels that nobody here has run; kernels of commplan's own; such kernels around
what carries one whole message."""
IMPL_KINDS: tuple[ImplKind, ...] = get_args(ImplKind)

Carrier = Literal["library", "host"]
"""What carries the message of a composed impl: calls of the library; copies through pinned memory of the host that all
ranks share."""

# ---- what an op costs ------------------------------------------------------------------------------------------------

StepRows = Literal["message", "padded", "dp_local"]
"""Rows of a step: of the whole message; of it padded to whole shards; of one DP group."""

RowRule = Literal["all", "padded", "dp_local", "shard", "logits", "unaligned", "unaligned_shard"]
"""Rows that a part of a cost works on: all of them; padded to whole shards; of one DP group; of one shard; those whose
logits are wanted, padded; all of them, or those of one shard, unless tp divides their number."""

Category = Literal["wire", "quantize", "norm", "residual", "latent_gemm", "padding"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
"""What the parts of an op's cost are for, in the order of reports."""

LaunchState = Literal["eager", "graph"]
"""Who launches the kernels of a forward: the host one by one, or the replay of a graph."""

Provenance = Literal["measured", "table", "table (transferred)", "datasheet", "formula", "assumed"]
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)
"""Where a figure comes from; the best known first."""

Word = TypeVar("Word", bound=str)


def as_word(value: str, accepted: Iterable[Word]) -> Word | None:
    """The word that a text is, or None where it is none of the accepted ones."""
    return next((word for word in accepted if word == value), None)
