"""How a server is started: unmodified, with flags of its own, under a plan of commplan's, or with its sums left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commplan.planner.strategy.file import StrategyFile

UNMODIFIED, AGAIN, BOUND = "unmodified", "again", "bound"
LEFT_OUT = Path(__file__).parent / "sums_left_out"
# Impls of commplan's own, and all those that read a peer's memory.
_OWN = ("commplan_triton", "commplan_triton_norm")
_PEERS = ("custom_one_shot", "flashinfer_fused", *_OWN)
_NO_TWO_STEPS = {
    "op": "reduce_scatter_all_gather"
}  # another order of sums at three ranks and more, and never faster here


@dataclass(frozen=True)
class Configuration:
    """One way to start a server.

    plan       fields of the deployment that are set for its plan; None: it has no plan
    arguments  of the server, besides those that all servers get
    hook       a folder on the import path whose plugin SGLang loads
    """

    what: str
    plan: Mapping[str, Any] | None = None
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    hook: Path | None = None


def _forbidden(impls: Iterable[str], ops: Iterable[str] = ("all_reduce", "int8_all_reduce")) -> list[dict[str, str]]:
    return [{"op": op, "impl": impl} for op in ops for impl in impls]


CONFIGURATIONS = {
    UNMODIFIED: Configuration("SGLang by all its defaults"),
    AGAIN: Configuration("the same once more"),
    "no_prefill_graphs": Configuration("its prefill graphs off", arguments=("--disable-prefill-cuda-graph",)),
    "layernorm_sp": Configuration("its flag --enable-layernorm-sp", arguments=("--enable-layernorm-sp",)),
    "server_kernels": Configuration(
        "plan: all_reduce by the server's own kernels",
        {"numerics.loosest": "reordered", "numerics.forbid": [*_forbidden(_OWN, ["all_reduce"]), _NO_TWO_STEPS]},
    ),
    "reordered": Configuration("plan, nothing quantised", {"numerics.loosest": "reordered"}),
    "quantised": Configuration("plan, INT8 allowed", {"numerics.loosest": "quantized"}),
    BOUND: Configuration("no communication: the sums left out", hook=LEFT_OUT),
}
# Without peer access between the GPUs: what every server is told, and what plans may not name there.
SLOW_LINKS = Configuration(
    "NCCL_P2P_DISABLE=1",
    {"numerics.forbid": [*_forbidden(_PEERS), _NO_TWO_STEPS]},
    ("--disable-custom-all-reduce",),
    {"NCCL_P2P_DISABLE": "1"},
)
_BEFORE_ARGUMENTS = 4  # python -P -m sglang.launch_server
# Flags of `commplan launch` that make any two servers alike; the others are what the plan changes in the server.
_ALIKE = ("--tp-size", "--attn-dp-size", "--ep-size", "--dtype", "--chunked-prefill-size", "--max-running-requests")


def overrides(name: str, model: Path, own: Mapping[str, Any], slow: bool, given: Sequence[str]) -> list[str]:
    """What `--set` takes for the plan of a configuration, those that were `given` last."""
    from commplan.planner.strategy.yaml_file import flow_text

    wanted = CONFIGURATIONS[name].plan or {}
    fields: dict[str, Any] = {"executor": "sglang", "model": str(model / "config.json"), **own, **wanted}
    if slow:
        fields |= SLOW_LINKS.plan or {}
    return [f"{field}={flow_text(value)}" for field, value in fields.items()] + list(given)


def make_plan(deployment: str, sets: Sequence[str], path: Path) -> StrategyFile:
    """The cheapest legal plan, written to `path` and read from there as the server will."""
    import commplan
    from commplan.runtime.servers.sglang.server_fit import load_runnable

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    commplan.plan(deployment, set=list(sets)).save(path)
    return load_runnable(path)


def decode_sizes(batches: Iterable[int], files: Iterable[StrategyFile]) -> list[int]:
    """Batch sizes to capture in every server: the usual ones, those measured, and the ends of the plans' ranges."""
    most = max(batches, default=1)
    usual = {size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size <= most}
    ends = {plan.last for file in files for plan in file.modes.get("decode", ()) if plan.last <= most}
    return sorted(usual | ends | set(batches))


def command_of(
    name: str, model: str, plan: StrategyFile | None, reference: StrategyFile, common: Sequence[str]
) -> list[str]:
    """The command line of a server: what `commplan launch` computes for its plan; without one, what of that makes any
    two servers alike, by the plan of another (`reference`)."""
    from commplan.runtime.servers.sglang.command import added_flags, server_command

    extra = [*common, *CONFIGURATIONS[name].arguments]
    if plan is not None:
        return server_command(plan, model, extra)
    python = server_command(reference, model)[:_BEFORE_ARGUMENTS]
    flags = [flag for flag in added_flags(reference, extra) if flag.name in _ALIKE]
    return [*python, "--model-path", model, *(word for f in flags for word in (f.name, *f.values)), *extra]
