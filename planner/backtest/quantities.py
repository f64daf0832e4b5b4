"""The figures that a back-test can ask for, from a plan at a token count or for one collective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..answers.breakdown import PARTS, Breakdown, breakdown
from ..cost.collectives import CollectiveCosts
from ..descriptions.deployment import ParallelismSpec
from ..descriptions.loader import lent_to
from ..descriptions.setup import Setup
from ..executors.launches import ONE_LAUNCH
from ..search.graph import Plan, Restriction
from ..search.planning import ModePlanner
from ..strategies import PLAIN
from ..strategy.errors import InputError, NoLegalPlanError, did_you_mean
from ..strategy.op_kinds import KINDS
from ..strategy.words import Provenance
from .case import OpLatency, PlanName
from .named_plan import AbsentOpError, named_plan

_ALL = PARTS
_NOT_COLLECTIVE = tuple(part for part in PARTS if part != "communication")


class NotComparableError(Exception):
    """The deployment has no such plan or op; the text is the reason."""


@dataclass(frozen=True)
class Quantity:
    """A figure of one forward: its unit, its value, and the parts of the breakdown that it rests on."""

    unit: str
    parts: tuple[str, ...]
    value: Callable[[Breakdown, int], float]


def _sum_of(*parts: str) -> Quantity:
    return Quantity("us", parts, lambda b, tokens: sum(b.parts[part] for part in parts))  # noqa: ARG005


_STEP = Quantity("us", _ALL, lambda b, tokens: b.step_us)  # noqa: ARG005
QUANTITIES = {
    "collective_time": _sum_of("communication"),
    "norm_time": _sum_of("norm"),
    "latent_gemm_time": _sum_of("latent_gemm"),
    "compute_time": _sum_of(*_NOT_COLLECTIVE),
    "step_time": _STEP,
    "ttft": _STEP,  # one forward over the prompt: no queue, no scheduler, no tokenizer
    "itl": _STEP,  # one forward of the running batch
    "throughput": Quantity("tokens/s", _ALL, lambda b, tokens: tokens / b.step_us * 1e6),
    "communication_share": Quantity("share", _ALL, lambda b, tokens: b.parts["communication"] / b.step_us),  # noqa: ARG005
    "activation_memory": Quantity("bytes", (), lambda b, tokens: float(b.activation_bytes)),  # noqa: ARG005
}


@dataclass(frozen=True)
class Figure:
    """A predicted number with what it rests on."""

    value: float
    provenance: Provenance
    sources: tuple[str, ...]


def of_plan(planner: ModePlanner, quantity: str, plan: PlanName, tokens: int) -> Figure:
    """A quantity of a named plan; NotComparableError where the deployment has no such plan."""
    parts = breakdown(planner, plan_named(planner, plan, tokens), tokens)
    asked = QUANTITIES[quantity]
    # Memory is counted from shapes and dtypes, so it rests on no measured figure.
    provenance = parts.provenance_of(*asked.parts) if asked.parts else "formula"
    sources = parts.sources if "communication" in asked.parts else ()
    return Figure(asked.value(parts, tokens), provenance, sources)


def plan_named(planner: ModePlanner, plan: PlanName, tokens: int) -> Plan:
    """The plan of a case at a token count; NotComparableError where the deployment has none."""
    try:
        if plan.optimum:
            return planner.best(tokens)
        if plan.ops is not None:
            return named_plan(planner, plan.named, tokens)
        assert plan.strategy is not None
        if plan.strategy == PLAIN:
            return planner.plain(tokens)
        # What was published ran on libraries, never on kernels of ours.
        return planner.best(tokens, Restriction(strategies=(plan.strategy,), pins=False, own_kernels=False))
    except NoLegalPlanError as error:
        raise NotComparableError(f"{plan}: {error.message}") from None
    except AbsentOpError as error:
        raise NotComparableError(str(error)) from None


def of_collective(setup: Setup, asked: OpLatency) -> Figure:
    """The latency of one collective over `group_size` ranks that sit side by side, in us."""
    executor, hardware = setup.executor, setup.hardware
    declared = executor.impls.get(asked.impl)
    if declared is None:
        hint = did_you_mean(asked.impl, executor.impls)
        raise InputError(f"executor {executor.name} has no such impl; {hint}", field="op.impl", value=asked.impl)
    if hardware.vendor not in declared.vendors:
        raise NotComparableError(f"{asked.impl} does not run on {hardware.name}")
    if asked.group_size > hardware.num_devices:
        raise NotComparableError(
            f"a group of {asked.group_size} is larger than {hardware.name}, which has {hardware.num_devices} devices"
        )
    costs = CollectiveCosts(_over(setup, asked.group_size))
    if declared.kind == "one_kernel":
        raise NotComparableError(f"{asked.impl} works on rows: name a plan, which says how wide they are")
    if declared.kind == "peer_to_peer":
        if asked.op not in KINDS or KINDS[asked.op].rounds is None:
            raise NotComparableError(f"{asked.impl} is a fused kernel without a plain {asked.op}")
        estimate = costs.peer_to_peer(asked.op, asked.message_bytes, asked.message_bytes / asked.group_size)
    elif not (
        asked.impl == hardware.backend
        or (asked.impl in ONE_LAUNCH and asked.op in executor.ops and asked.impl in executor.ops[asked.op].impls)
        or costs.table_sizes(asked.op, asked.impl, asked.dtype, "tp")
    ):
        raise NotComparableError(
            f"no table has {asked.op} by {asked.impl} over {asked.group_size} ranks, nor a formula"
        )
    else:
        estimate = costs.collective(asked.op, asked.impl, asked.dtype, "tp", asked.message_bytes)
    return Figure(estimate.total_us, estimate.provenance, (estimate.source,))


def _over(setup: Setup, group_size: int) -> Setup:
    """The same machine under plain tensor parallelism of this size; the model has no say in one collective."""
    deployment = setup.deployment.model_copy(update={"parallelism": ParallelismSpec(tp=group_size)})
    over = replace(setup, deployment=deployment)
    return replace(over, lent=tuple(lent_to(over)))  # of groups of this size, as the link of a shared tree lends
