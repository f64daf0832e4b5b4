"""How a server is started: unmodified, with flags of its own, under a plan of commplan's, or with its sums left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from commplan.planner.strategy.executor_file import Impl
    from commplan.planner.strategy.file import StrategyFile

UNMODIFIED, AGAIN, BOUND = "unmodified", "again", "bound"
LEFT_OUT = Path(__file__).parent / "sums_left_out"
# Another order of sums at three ranks and more, and never faster here.
_NO_TWO_STEPS = {"op": "reduce_scatter_all_gather"}


@dataclass(frozen=True)
class Configuration:
    """One way to start a server.

    plan       fields of the deployment that are set for its plan; None: it has no plan
    without    impls that its plan may not name, as a test of name and record
    arguments  of the server, besides those that all servers get
    hook       a folder on the import path whose plugin SGLang loads
    """

    what: str
    plan: Mapping[str, Any] | None = None
    without: Callable[[str, Impl], bool] = lambda name, impl: False  # noqa: ARG005
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    hook: Path | None = None


CONFIGURATIONS = {
    UNMODIFIED: Configuration("SGLang by all its defaults"),
    AGAIN: Configuration("the same once more"),
    "no_prefill_graphs": Configuration("its prefill graphs off", arguments=("--disable-prefill-cuda-graph",)),
    "layernorm_sp": Configuration("its flag --enable-layernorm-sp", arguments=("--enable-layernorm-sp",)),
    "server_kernels": Configuration(
        "plan: all_reduce by the server's own kernels",
        {"numerics.loosest": "reordered", "numerics.forbid": [_NO_TWO_STEPS]},
        without=lambda name, impl: name.startswith(("commplan_", "composed", "host_staged")),  # noqa: ARG005
    ),
    "reordered": Configuration("plan, nothing quantised", {"numerics.loosest": "reordered"}),
    "quantised": Configuration("plan, INT8 allowed", {"numerics.loosest": "quantized"}),
    "six_bits": Configuration(
        "plan, INT8 and INT6 allowed", {"numerics.loosest": "quantized", "numerics.wire_formats": ["int8", "int6"]}
    ),
    "four_bits": Configuration(
        "plan, INT8 and INT4 with spikes allowed",
        {"numerics.loosest": "quantized", "numerics.wire_formats": ["int8", "int4_spikes"]},
    ),
    "reading_ahead": Configuration(
        "plan, nothing quantised, whose sums ask for 2 MiB of the next weights",
        {"numerics.loosest": "reordered"},
        environment={"COMMPLAN_READ_AHEAD": str(2 << 20)},
    ),
    # A fused sum would not pass where sums are left out.
    BOUND: Configuration(
        "no communication: the sums left out",
        arguments=("--enforce-disable-flashinfer-allreduce-fusion",),
        hook=LEFT_OUT,
    ),
}
# Without peer access between the GPUs: what every server is told, and what plans may not name there.
SLOW_LINKS = Configuration(
    "NCCL_P2P_DISABLE=1",
    without=lambda name, impl: impl.peer_access,  # noqa: ARG005
    arguments=("--disable-custom-all-reduce",),
    environment={"NCCL_P2P_DISABLE": "1"},
)
SLOW_HARDWARE = "h200-2-no-peer"
_BEFORE_ARGUMENTS = 4  # python -P -m sglang.launch_server
# Flags of `commplan launch` that make any two servers alike; the others are what the plan changes in the server.
_ALIKE = ("--tp-size", "--attn-dp-size", "--ep-size", "--dtype", "--chunked-prefill-size", "--max-running-requests")


def overrides(name: str, model: Path, own: Mapping[str, Any], slow: bool, given: Sequence[str]) -> list[str]:
    """What `--set` takes for the plan of a configuration, those that were `given` last."""
    from commplan.planner.strategy.yaml_file import flow_text

    configuration = CONFIGURATIONS[name]
    fields: dict[str, Any] = {"executor": "sglang", "model": str(model / "config.json"), **own}
    fields |= configuration.plan or {}
    if slow and (files("commplan.configs") / "hardware" / f"{SLOW_HARDWARE}.yaml").is_file():
        fields["hardware"] = SLOW_HARDWARE
    tests = [configuration.without, _is_not_installed, *([SLOW_LINKS.without] if slow else [])]
    fields["numerics.forbid"] = [*fields.get("numerics.forbid", []), *forbidden(tests)]
    return [f"{field}={flow_text(value)}" for field, value in fields.items()] + list(given)


def forbidden(tests: Sequence[Callable[[str, Impl], bool]]) -> list[dict[str, str]]:
    """A rule for every op and impl of the server's that one of the tests finds."""
    from commplan.planner.strategy.executor_file import capabilities

    can = capabilities("sglang")
    return [
        {"op": op, "impl": impl}
        for op, capability in can.ops.items()
        for impl in capability.impls
        if any(finds(impl, can.impls[impl]) for finds in tests)
    ]


def _is_not_installed(name: str, impl: Impl) -> bool:
    """FlashInfer's kernels need a package that is not among those that are carried."""
    return name.startswith("flashinfer") and find_spec("flashinfer") is None and impl.stock_only is None


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


def prefill_sizes(tokens: Iterable[int], files: Iterable[StrategyFile]) -> list[int]:
    """Prompts to capture in every server: those measured and the ends of the plans' ranges.

    SGLang captures those measured by itself, and 65 more: minutes, with 64 layers and servers that share cards.
    """
    ends = {plan.last for file in files for plan in file.modes.get("prefill", ())}
    return sorted(set(tokens) | ends)


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
