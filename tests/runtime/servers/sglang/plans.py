"""Plans written out by hand for tiny checkpoints of four layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from commplan.planner.strategy.file import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Op,
    Parallelism,
    RangePlan,
    StrategyFile,
    config_fingerprint,
    save,
)

NONE = Op("none")
PLAIN = Op("all_reduce")
TWO_STEPS = Op("reduce_scatter_all_gather")
GATHER = Op("int8_all_reduce", algorithm="gather")
TWO_SHOT = Op("int8_all_reduce", algorithm="two_shot")
PREFILL_TOKENS, DECODE_TOKENS = 256, 8
_EXPERTS = {"num_experts", "num_local_experts", "n_routed_experts"}

Sums = Sequence[tuple[Op, Op]]  # attn_out and mlp_out of each layer
EVERYWHERE_PLAIN: Sums = [(PLAIN, PLAIN)] * 4
MIXED: Sums = [(TWO_STEPS, PLAIN), (PLAIN, TWO_STEPS), (TWO_STEPS, TWO_STEPS), (PLAIN, PLAIN)]
QUANTISED: Sums = [(GATHER, TWO_SHOT), (TWO_SHOT, GATHER), (GATHER, GATHER), (PLAIN, TWO_SHOT)]


def tokens(first: int, last: int, sums: Sums) -> RangePlan:
    """A range with these sums."""
    return RangePlan(first, last, PLAIN, tuple(LayerOps(NONE, a, NONE, m) for a, m in sums), NONE)


def plan(
    checkpoint: Path,
    numerics: str = "reordered",
    ep: int = 1,
    tp: int = 2,
    attn_dp: int = 1,
    **modes: Sequence[RangePlan],
) -> StrategyFile:
    """A plan for a checkpoint, on two ranks where nothing else is said."""
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    first_moe = config.get("first_k_dense_replace", 0)
    has_moe = bool(_EXPERTS & set(config))
    latent = config.get("q_lora_rank") or 0
    width = latent + config["kv_lora_rank"] + config["qk_rope_head_dim"] if latent else 0
    fingerprint = config_fingerprint(config)
    assert fingerprint is not None
    return StrategyFile(
        model=ModelStamp(
            name=checkpoint.name,
            role="target",
            architecture=config["architectures"][0],
            num_hidden_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            latent_width=width,
            moe_layers=frozenset(range(first_moe, config["num_hidden_layers"])) if has_moe else frozenset(),
            fingerprint=fingerprint,
        ),
        hardware=HardwareStamp("cpu-gloo", "gloo", "0" * 16),
        deployment=DeploymentStamp("tiny", "fp32", "0" * 16),
        executor="sglang",
        parallelism=Parallelism(tp, attn_dp, ep),
        numerics=numerics,
        modes={mode: tuple(ranges) for mode, ranges in modes.items()},
    )


def varied(checkpoint: Path, ep: int = 1) -> StrategyFile:
    """Prefill unlike decode, ranges unlike each other, layers unlike each other; no INT8."""
    return plan(
        checkpoint,
        ep=ep,
        prefill=[tokens(1, 16, EVERYWHERE_PLAIN), tokens(17, PREFILL_TOKENS, MIXED)],
        decode=[tokens(1, 2, EVERYWHERE_PLAIN), tokens(3, DECODE_TOKENS, list(reversed(MIXED)))],
    )


def quantised(checkpoint: Path) -> StrategyFile:
    """INT8 in every layer of a prefill, plain all-reduce in decode."""
    return plan(
        checkpoint,
        "quantized",
        prefill=[tokens(1, PREFILL_TOKENS, QUANTISED)],
        decode=[tokens(1, DECODE_TOKENS, EVERYWHERE_PLAIN)],
    )


def own(name: str, norm: bool = True, algorithm: str | None = None) -> Op:
    """An op by kernels of our own, with the norm behind it or without."""
    return Op(name, algorithm, impl="commplan_triton_norm" if norm else "commplan_triton")


FUSED_SUM, OWN_SUM = own("all_reduce"), own("all_reduce", norm=False)
PUSHED = own("all_reduce", algorithm="pushed")
FUSED_TWO_SHOT = own("int8_all_reduce", algorithm="two_shot")
FUSED_GATHER = own("int8_all_reduce", algorithm="gather")
# Fused beside plain, each next to each, and the last FFN's sum in the final norm.
FUSED_SUMS: Sums = [(FUSED_SUM, FUSED_SUM), (PLAIN, FUSED_SUM), (FUSED_SUM, PLAIN), (OWN_SUM, FUSED_SUM)]
ALL_FUSED: Sums = [(FUSED_SUM, FUSED_SUM)] * 4
FUSED_QUANTISED: Sums = [
    (FUSED_TWO_SHOT, FUSED_GATHER),
    (FUSED_GATHER, PLAIN),
    (PLAIN, FUSED_TWO_SHOT),
    (own("int8_all_reduce", norm=False, algorithm="two_shot"), FUSED_TWO_SHOT),
]


def fused(checkpoint: Path) -> StrategyFile:
    """Kernels of our own, with norms and without; the embedding too. Other layers in other ranges; rows that are pushed
    while they are made, but not those of experts."""
    dense = not _EXPERTS & set(json.loads((checkpoint / "config.json").read_text()))
    attention, mlp = (PUSHED, FUSED_SUM), (FUSED_SUM, PUSHED) if dense else (FUSED_SUM, FUSED_SUM)
    both = (PUSHED, PUSHED) if dense else attention
    short = tokens(1, 16, [both, attention, mlp, both])
    long = tokens(17, PREFILL_TOKENS, FUSED_SUMS)
    return plan(
        checkpoint,
        prefill=[replace(short, embed_out=OWN_SUM), long],
        decode=[tokens(1, 2, FUSED_SUMS), tokens(3, DECODE_TOKENS, EVERYWHERE_PLAIN)],
    )


def fused_quantised(checkpoint: Path) -> StrategyFile:
    """As `quantised`, by kernels of our own with norms."""
    return plan(
        checkpoint,
        "quantized",
        prefill=[tokens(1, PREFILL_TOKENS, FUSED_QUANTISED)],
        decode=[tokens(1, DECODE_TOKENS, ALL_FUSED)],
    )


def composed_quantised(checkpoint: Path) -> StrategyFile:
    """Every layer another format, around the library or through the host's memory, with norms and without; the last
    FFN's in the final norm."""

    def by(wire: str, algorithm: str, pieces: int | None = None, norm: bool = True, through: str = "composed") -> Op:
        impl = f"{through}_norm" if norm else through
        return Op(
            "quantized_all_reduce", algorithm, impl=impl, wire_name=wire, scale_group="64", pieces=pieces
        )  # fmt: skip

    token = Op("int8_all_reduce", "gather", impl="composed_norm", pieces=2)
    rows = Op("all_reduce", "gather", impl="host_staged", pieces=2)
    sums: Sums = [
        (token, by("int8", "two_shot")),
        (by("int6", "gather", 3, through="host_staged"), rows),
        (PLAIN, by("fp8_e4m3", "gather", norm=False)),
        (by("int4_spikes", "two_shot"), by("int8", "gather", 2, through="host_staged")),
    ]
    few = Op("all_reduce", "one_shot", impl="host_staged_norm")
    return plan(
        checkpoint,
        "quantized",
        prefill=[tokens(1, PREFILL_TOKENS, sums)],
        decode=[tokens(1, DECODE_TOKENS, [(few, few)] * 4)],
    )


# ---- rows in shards --------------------------------------------------------------------------------------------------

SCATTER, GATHER_ROWS, FOLD = Op("reduce_scatter"), Op("all_gather"), Op("all_reduce", residual="fold")
TWO_STEPS_FOLD = Op("reduce_scatter_all_gather", residual="fold")
KEEP = Op("all_reduce", residual="gather")
OWN_SCATTER, OWN_GATHER = own("reduce_scatter"), own("all_gather", norm=False)
BARE_SCATTER = own("reduce_scatter", norm=False)


def late(layer: int) -> Op:
    """The gather of latents, of the shard that the layer before left."""
    return Op("latent_all_gather", producer="previous.mlp_out" if layer else "embed_out")


def scattered(first: int, last: int) -> RangePlan:
    """A whole forward in shards, from the embedding to the sum that brings all rows to the head."""
    layers = [LayerOps(GATHER_ROWS, SCATTER, GATHER_ROWS, SCATTER)] * 3
    end = LayerOps(GATHER_ROWS, SCATTER, GATHER_ROWS, TWO_STEPS_FOLD)
    return RangePlan(first, last, SCATTER, (*layers, end), NONE)


def mixed_layouts(first: int, last: int) -> RangePlan:
    """Every layer in a layout of its own: rows in shards and whole, the residual sliced, folded, gathered, kept."""
    layers = (
        LayerOps(NONE, SCATTER, GATHER_ROWS, FOLD),
        LayerOps(NONE, PLAIN, NONE, SCATTER),
        LayerOps(GATHER_ROWS, KEEP, NONE, PLAIN),
        LayerOps(NONE, SCATTER, GATHER_ROWS, KEEP),
    )
    return RangePlan(first, last, PLAIN, layers, NONE)


def own_scattered(first: int, last: int) -> RangePlan:
    """By kernels of our own: with the norm and without, folds and slices, and the last sum in the final norm."""
    fold = replace(FUSED_SUM, residual="fold")
    layers = (
        LayerOps(OWN_GATHER, OWN_SCATTER, OWN_GATHER, OWN_SCATTER),
        LayerOps(OWN_GATHER, fold, NONE, FUSED_SUM),
        LayerOps(NONE, BARE_SCATTER, GATHER_ROWS, OWN_SCATTER),
        LayerOps(GATHER_ROWS, OWN_SCATTER, OWN_GATHER, fold),
    )
    return RangePlan(first, last, BARE_SCATTER, layers, NONE)


def late_latents(first: int, last: int, own_kernels: bool = False) -> RangePlan:
    """Rows stay in shards up to the latents; attention's sum carries the residual. Once by the early gather."""
    fold, scatter = (replace(FUSED_SUM, residual="fold"), OWN_SCATTER) if own_kernels else (FOLD, SCATTER)
    gathers = [replace(late(layer), impl="commplan_triton" if own_kernels else None) for layer in range(4)]
    gathers[2] = GATHER_ROWS
    layers = [LayerOps(gather, fold, NONE, scatter) for gather in gathers]
    layers[3] = LayerOps(gathers[3], scatter, OWN_GATHER if own_kernels else GATHER_ROWS, fold)
    return RangePlan(first, last, BARE_SCATTER if own_kernels else SCATTER, tuple(layers), NONE)


def whole_forwards(checkpoint: Path, latent: bool = False) -> StrategyFile:
    """Other layouts in other ranges and modes, by the library and by kernels of our own. `latent`: late gathers."""
    first = late_latents(1, 8) if latent else scattered(1, 8)
    second = late_latents(9, 16, own_kernels=True) if latent else own_scattered(9, 16)
    return plan(
        checkpoint,
        prefill=[first, second, mixed_layouts(17, 30), own_scattered(31, PREFILL_TOKENS)],
        decode=[own_scattered(1, 2), replace(first, first=3, last=DECODE_TOKENS)],
    )


# ---- attention DP ----------------------------------------------------------------------------------------------------


def over(name: str, group: str | None = None, residual: str | None = None, algorithm: str | None = None) -> Op:
    """An op with its group spelled."""
    return Op(name, algorithm, group, residual)


FUSED = Op("fused")
# Two groups of two ranks. Every pair that the layouts allow between attention and MLP, and back, once in four layers.
EVERY_PAIR = (
    LayerOps(NONE, over("all_reduce", "attn_tp"), over("all_gather", "attn_dp"), over("reduce_scatter", "tp")),
    LayerOps(
        over("all_gather", "attn_tp"),
        over("all_reduce_all_gather", residual="fold"),
        FUSED,
        over("reduce_scatter_all_reduce"),
    ),
    LayerOps(
        FUSED,
        over("reduce_scatter", "attn_tp"),
        over("all_gather", "tp"),
        over("all_reduce", "tp", residual="gather"),
    ),
    LayerOps(
        NONE,
        over("reduce_scatter_all_gather", "attn_tp"),
        over("all_gather", "attn_dp"),
        over("reduce_scatter_all_gather", "tp"),
    ),
)
ZERO_BUFFER = (LayerOps(NONE, over("all_reduce", "tp", residual="fold"), NONE, over("all_reduce", "tp")),) * 4
FOLDED = (
    LayerOps(
        NONE, over("reduce_scatter", "attn_tp"), over("all_gather", "tp"), over("all_reduce", "tp", residual="fold")
    ),
) * 4
QUANTISED_GROUPS = (
    LayerOps(
        NONE,
        over("int8_all_reduce", "attn_tp", algorithm="gather"),
        over("all_gather", "attn_dp"),
        over("int8_all_reduce", "tp", algorithm="two_shot"),
    ),
) * 4
# Two groups of one rank: nothing is left to sum behind attention.
GATHER_SCATTER = (LayerOps(NONE, NONE, over("all_gather", "tp"), over("reduce_scatter", "tp")),) * 4
GATHER_SUM = (LayerOps(NONE, NONE, over("all_gather", "tp"), over("all_reduce", "tp")),) * 4


def groups(first: int, last: int, layers: Sequence[LayerOps], attn_tp: int = 2) -> RangePlan:
    """A range under attention DP."""
    if attn_tp == 1:
        return RangePlan(first, last, NONE, tuple(layers), over("all_gather", "tp"))
    return RangePlan(first, last, over("all_reduce", "attn_tp"), tuple(layers), over("all_gather", "attn_dp"))


def written(strategy: StrategyFile, path: Path, **changes: Any) -> Path:
    """The path of its file; `changes` replace fields."""
    save(replace(strategy, **changes), path)
    return path
