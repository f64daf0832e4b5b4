"""The nearest that SGLang 0.5.23 has without a plugin: one of its own switches, and what it does not express.

A switch is a whole forward in the words of a plan: which op it runs at a boundary, by mode and kind of layer. What
follows is read in the source of 0.5.23 (docs/decisions/sglang.md); none of it was timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from commplan.planner.strategy.file import NONE, Op, RangePlan, StrategyFile, places

from ...kernels.peer_impls import OUR_IMPLS, uses_of
from .command import Flag, needed


@dataclass(frozen=True, slots=True)
class Place:
    """A boundary of a layer (None outside the layers) in a forward mode."""

    mode: str
    layer: int | None
    boundary: str
    moe: bool
    last: bool  # of the layers
    alone: bool = False  # a DP group is one rank


@dataclass(frozen=True, slots=True)
class Switch:
    """Flags of SGLang's and the op that they run at a place; `fits` says for which plans they can be set at all."""

    name: str
    flags: tuple[Flag, ...]
    fits: Callable[[StrategyFile], bool]
    op: Callable[[Place], str]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where the switch runs another op than the plan, on these layers (empty outside the layers)."""

    mode: str
    tokens: tuple[int, int]
    boundary: str
    layers: tuple[int, ...]
    planned: str
    native: str


@dataclass(frozen=True, slots=True)
class Export:
    """The nearest switch, what it shares with the plan and what not."""

    switch: Switch
    flags: list[Flag]
    own: tuple[str, ...]  # impls of commplan's own that the plan names: no server without the plugin has them
    matched: float  # share of the planned sums and gathers, weighted by tokens
    differences: list[Difference]


_NOTHING = str(NONE)
# Needed so that a planned op stays the planned one; without the plugin graphs may freeze what they like.
_FOR_THE_PLUGIN = (
    "--disable-prefill-cuda-graph",
    "--disable-cuda-graph",
    "--cuda-graph-bs-decode",
    "--cuda-graph-bs-prefill",
    "--enforce-disable-flashinfer-allreduce-fusion",
)


def nearest(file: StrategyFile) -> Export:
    """The switch that runs most of the plan's ops; ties go to the one with fewer flags."""
    found = [_judge(file, switch) for switch in SWITCHES if switch.fits(file)]
    return max(found, key=lambda export: (export.matched, -len(export.switch.flags)))


def _judge(file: StrategyFile, switch: Switch) -> Export:
    same = total = 0
    differences: list[Difference] = []
    last, alone = file.model.num_hidden_layers - 1, file.parallelism.attn_tp == 1
    for mode, ranges in file.modes.items():
        for plan in ranges:
            open_runs: dict[tuple[str, str, str], list[int]] = {}
            for layer, boundary, op in places(plan):
                place = Place(mode, layer, boundary, layer in file.model.moe_layers, layer == last, alone)
                native = switch.op(place)
                planned = _words(op)
                weight = 0 if op.kind.is_none and native == _NOTHING else plan.last
                total += weight
                same += weight if planned == native else 0
                if planned != native:
                    run = open_runs.setdefault((boundary, planned, native), [])
                    run += [] if layer is None else [layer]
            differences += _differences(mode, plan, open_runs)
    flags = [flag for flag in needed(file) if flag.name not in _FOR_THE_PLUGIN]
    own = tuple(sorted({str(use.op.impl) for use in uses_of(file, OUR_IMPLS)}))
    return Export(switch, [*flags, *switch.flags], own, same / total if total else 1.0, differences)


def _differences(mode: str, plan: RangePlan, runs: dict[tuple[str, str, str], list[int]]) -> Iterator[Difference]:
    for (boundary, planned, native), layers in runs.items():
        yield Difference(mode, (plan.first, plan.last), boundary, tuple(layers), planned, native)


def _words(op: Op) -> str:
    return f"{op.name} ({op.algorithm})" if op.algorithm else op.name


# ---- the switches ----------------------------------------------------------------------------------------------------


def _plain(place: Place) -> str:
    return "all_reduce" if place.boundary in ("embed_out", "attn_out", "mlp_out") else _NOTHING


def _quantised(place: Place) -> str:
    if place.mode == "decode" or place.boundary not in ("attn_out", "mlp_out"):
        return _plain(place)
    return "all_reduce" if place.boundary == "mlp_out" and place.moe else "int8_all_reduce (gather)"


def _layernorm_sp(place: Place) -> str:
    if place.mode != "prefill" or place.boundary == "embed_out":
        return _plain(place)
    return "reduce_scatter" if place.boundary in ("attn_out", "mlp_out") else "all_gather"


def _input_scattered(place: Place) -> str:
    if place.mode not in ("prefill", "mixed") or (place.last and place.boundary == "mlp_out"):
        return _plain(place)
    scattered = {"embed_out": "reduce_scatter", "attn_in": "latent_all_gather", "mlp_out": "reduce_scatter"}
    return scattered.get(place.boundary, _plain(place))


def _attention_dp(place: Place) -> str:
    """A prefill is summed in buffers of all rows, unpadded; a decode with groups of like size travels in shards. The
    norm before the MLP runs on all rows either way, but for DP groups of one rank."""
    shards = place.mode == "decode"
    if place.boundary == "attn_in":
        return _NOTHING
    if place.boundary == "mlp_out":
        return ("reduce_scatter" if place.alone else "reduce_scatter_all_gather") if shards else "all_reduce"
    if place.alone:  # nothing to sum before; the rows are brought together at mlp_in
        gathers = {"mlp_in": "all_gather" if shards else "all_reduce", "head_in": "all_reduce"}
        return gathers.get(place.boundary, _NOTHING)
    if place.boundary == "attn_out":
        return "reduce_scatter" if shards else "all_reduce"
    return (
        _NOTHING
        if place.boundary == "mlp_in" and not shards
        else {"mlp_in": "all_gather"}.get(place.boundary, "all_reduce")
    )


def _ordinary_tp(file: StrategyFile) -> bool:
    return file.parallelism.attn_dp == 1 and file.parallelism.tp > 1


SWITCHES = (
    Switch("plain all-reduce", (), lambda file: file.parallelism.attn_dp == 1, _plain),
    Switch(
        "INT8 gather",
        (Flag("--enable-quant-communications", (), "sums in INT8 in every mode but decode"),),
        lambda file: _ordinary_tp(file) and file.hardware.backend == "hccl",
        _quantised,
        "every mode but decode, whatever the token count; sums of MoE layers stay plain",
    ),
    Switch(
        "sharded norm",
        (Flag("--enable-layernorm-sp", (), "norms on shards in every prefill"),),
        lambda file: _ordinary_tp(file) and file.model.architecture == "Qwen3ForCausalLM",
        _layernorm_sp,
        "every prefill, whatever the token count; its first layer gathers once more than a plan would",
    ),
    Switch(
        "late latent gather",
        (Flag("--enable-attn-tp-input-scattered", (), "rows in shards up to the latents in every prefill"),),
        lambda file: (
            _ordinary_tp(file)
            and file.hardware.backend != "gloo"
            and file.model.latent_width > 0
            and file.model.architecture != "DeepseekV32ForCausalLM"
        ),
        _input_scattered,
        "every prefill, whatever the token count; the last layer ends on an all-reduce",
    ),
    Switch(
        "attention data parallelism",
        (Flag("--boundary-reduction", ("rs",), "reduce-scatter instead of all-reduce where rows are padded"),),
        lambda file: file.parallelism.attn_dp > 1,
        _attention_dp,
        "by mode alone: in shards where no group prefills and groups are of like size, else in buffers of all rows "
        "(a prefill that runs as a graph: in shards)",
    ),
)
