"""Strategy files for the tiny models: the strategies of the planner, spelled out by ops."""

from __future__ import annotations

from collections.abc import Sequence

from commplan.planner.strategy.file import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    Op,
    Parallelism,
    RangePlan,
    StrategyFile,
    problems,
)

from .tiny_models import TinyModel

MOST_TOKENS = 64
NONE = Op("none")
ALL_REDUCE = Op("all_reduce")
REDUCE_SCATTER = Op("reduce_scatter")
ALL_GATHER = Op("all_gather")
INT8_GATHER = Op("int8_all_reduce", algorithm="gather")
INT8_TWO_SHOT = Op("int8_all_reduce", algorithm="two_shot")
LATE_GATHER = Op("latent_all_gather")  # `from` is filled in by layer
FOLDED = Op("all_reduce", residual="fold")

# embed_out; attn_in, attn_out, mlp_in, mlp_out of every layer; head_in
Uniform = tuple[Op, Op, Op, Op, Op, Op]
UNIFORM: dict[str, Uniform] = {
    "all_reduce": (ALL_REDUCE, NONE, ALL_REDUCE, NONE, ALL_REDUCE, NONE),
    "int8_gather": (ALL_REDUCE, NONE, INT8_GATHER, NONE, INT8_GATHER, NONE),
    "int8_two_shot": (ALL_REDUCE, NONE, INT8_TWO_SHOT, NONE, INT8_TWO_SHOT, NONE),
    "int8_both": (ALL_REDUCE, NONE, INT8_TWO_SHOT, NONE, INT8_GATHER, NONE),
    "all_reduce_in_two_steps": (ALL_REDUCE, NONE, Op("reduce_scatter_all_gather"), NONE, ALL_REDUCE, NONE),
    "tp_sp": (REDUCE_SCATTER, ALL_GATHER, REDUCE_SCATTER, ALL_GATHER, REDUCE_SCATTER, ALL_GATHER),
    "folded": (REDUCE_SCATTER, ALL_GATHER, FOLDED, NONE, REDUCE_SCATTER, ALL_GATHER),
    "int8_beside_a_sharded_residual": (
        REDUCE_SCATTER,
        ALL_GATHER,
        Op("int8_all_reduce", algorithm="two_shot", residual="gather"),
        NONE,
        REDUCE_SCATTER,
        ALL_GATHER,
    ),
}
# MLA: the latents are gathered instead of the rows
LATENT: dict[str, Uniform] = {
    "tp_sp_late_gather": (REDUCE_SCATTER, LATE_GATHER, REDUCE_SCATTER, ALL_GATHER, REDUCE_SCATTER, ALL_GATHER),
    "late_gather_and_fold": (REDUCE_SCATTER, LATE_GATHER, FOLDED, NONE, REDUCE_SCATTER, ALL_GATHER),
}


def _over(group: str, op: Op) -> Op:
    return Op(op.name, op.algorithm, group, op.residual)


_IN_GROUP, _ALL = "attn_tp", "tp"
ATTENTION_DP: dict[str, Uniform] = {
    "scatter_then_gather": (
        _over(_IN_GROUP, REDUCE_SCATTER),
        _over(_IN_GROUP, ALL_GATHER),
        _over(_IN_GROUP, REDUCE_SCATTER),
        _over(_ALL, ALL_GATHER),
        _over(_ALL, REDUCE_SCATTER),
        _over(_ALL, ALL_GATHER),
    ),
    "sum_then_gather": (
        _over(_IN_GROUP, ALL_REDUCE),
        NONE,
        _over(_IN_GROUP, ALL_REDUCE),
        _over("attn_dp", ALL_GATHER),
        _over(_ALL, ALL_REDUCE),
        _over("attn_dp", ALL_GATHER),
    ),
    "zero_buffer": (
        _over(_IN_GROUP, ALL_REDUCE),
        NONE,
        Op("all_reduce", group=_ALL, residual="fold"),
        NONE,
        _over(_ALL, ALL_REDUCE),
        _over("attn_dp", ALL_GATHER),
    ),
    "mixed_comm": (
        _over(_IN_GROUP, ALL_REDUCE),
        NONE,
        Op("all_reduce_all_gather", residual="fold"),
        Op("fused"),
        Op("reduce_scatter_all_reduce"),
        _over("attn_dp", ALL_GATHER),
    ),
    "int8_in_and_across_groups": (
        _over(_IN_GROUP, ALL_REDUCE),
        NONE,
        _over(_IN_GROUP, INT8_TWO_SHOT),
        _over("attn_dp", ALL_GATHER),
        _over(_ALL, INT8_GATHER),
        _over("attn_dp", ALL_GATHER),
    ),
}


def plan_of(ops: Sequence[Op]) -> RangePlan:
    """A plan from its ops in the order of the forward."""
    layers = tuple(LayerOps(*ops[i : i + 4]) for i in range(1, len(ops) - 1, 4))
    return RangePlan(1, MOST_TOKENS, ops[0], layers, ops[-1])


def uniform_plan(ops: Uniform, num_layers: int) -> RangePlan:
    """The same ops in every layer; after a `fused` op attn_in says `fused` too."""
    embed_out, attn_in, attn_out, mlp_in, mlp_out, head_in = ops
    spelled = [embed_out]
    for layer in range(num_layers):
        first = attn_in
        if attn_in.name == "latent_all_gather":
            first = Op("latent_all_gather", producer="previous.mlp_out" if layer else "embed_out")
        elif mlp_out.kind.spans_two and layer:
            first = Op("fused")
        spelled += [first, attn_out, mlp_in, mlp_out]
    return plan_of([*spelled, head_in])


def strategy_file(tiny: TinyModel, p: Parallelism, plan: RangePlan) -> StrategyFile:
    """A legal file for HCCL that runs a plan in prefill and decode."""
    file = StrategyFile(
        model=tiny.stamp,
        hardware=HardwareStamp("ascend", "hccl", "0" * 16),
        deployment=DeploymentStamp("tiny", "bf16", "0" * 16),
        executor="transformers",
        parallelism=p,
        numerics="quantized",
        modes={"prefill": (plan,), "decode": (plan,)},
    )
    assert list(problems(file)) == []
    return file
