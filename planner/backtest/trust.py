"""How far a plan can be trusted: the nearest back-test, the range of its gain, and what it assumes.

Nothing is run for it: it is arithmetic on two plans, with what the back-tests found (accuracy_file.py).

Nearest back-test. In this order, the first difference decides: the machine (the same; else the same vendor and topology
of the link that the ranks share; else the same vendor; else any), the number of ranks (in whole powers of two), the
collectives that both plans have (of all that either has), the bytes of a message (in whole powers of two), and what was
measured: a ratio of whole steps, a ratio of a part, an absolute figure.

Range of the gain. Each figure that a step rests on (each collective by each impl, passes over memory, GEMMs, the rest
of the compute) is moved up and down by the spread of its class, in the plan and in what it is held against alike; the
movements of the gain's logarithm add up as squares do, since nothing says that figures err together. A class is the
vendor, what a figure is of (what travels, over a shared tree apart; what a device does alone) and its provenance; its
spread is what 80 % of |ln(predicted / measured)| do not exceed, over the absolute back-tests of the class and its
tables, each of which counts once, by what 80 % of its held-out points do not exceed. A gain may well lie in this range;
it is no confidence interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..cost.estimate import Estimate, weakest
from ..cost.terms import COMMUNICATION, Gemm, Term
from ..descriptions.base import Figure, Spec
from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.hardware import Link
from ..descriptions.setup import Setup
from ..descriptions.weight_types import WEIGHT_TYPES
from ..search.graph import Plan
from ..search.planning import ModePlanner
from ..strategy.words import Provenance
from .accuracy_file import CaseRecord, Kind, Summary, shipped_summary

_WHOLE_STEPS = ("throughput", "ttft", "itl", "step_time")
_TABLES = ("measured", "table", "table (transferred)")
_COMPUTE, _PASSES = "compute", "passes over memory"
_ROUNDING = 1e-6
_MATTERS = 0.002  # of a gain: what is assumed and moves it less is not worth a word


class Share(NamedTuple):
    """The time of a step that rests on one figure, and the fields of the machine behind it."""

    time_us: float
    kind: Kind
    provenance: Provenance
    fields: frozenset[str]


Shares = Mapping[str, Share]
"""By the name of the figure: the same name in two plans is the same figure."""


@dataclass(frozen=True)
class Gain:
    """What the plan is held against over the plan, and where that may lie."""

    over: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Trust:
    """Of one plan at one token count.

    nearest  the nearest back-test, and in words how near it is
    fits     whether the devices have the memory; None: nobody looked
    assumed  the fields of the machine that are assumed and that the step or the gain rests on
    """

    gain: Gain
    nearest: CaseRecord
    nearness: str
    fits: bool | None
    assumed: tuple[str, ...]


def trust_of(
    planner: ModePlanner,
    plan: Plan,
    tokens: int,
    over: str = "all_reduce",
    against: Shares | None = None,
    fits: bool | None = None,
    summary: Summary | None = None,
) -> Trust:
    """The trust of a plan at a token count.

    over, against  what the gain is over, and what a step of it is made of (`shares_of`); plain all-reduce unless given
    """
    known = summary or shipped_summary()
    own = shares_of(planner, plan, tokens)
    base = against if against is not None else shares_of(planner, planner.plain(tokens), tokens)
    moves = {name: _move(name, own, base, known, planner.setup) for name in {**own, **base}}
    value = math.log(_total(base) / _total(own))
    reach = math.sqrt(sum(move**2 for move in moves.values()))
    gain = Gain(over, math.exp(value), math.exp(value - reach), math.exp(value + reach))
    nearest, nearness = nearest_case(planner.setup, plan, tokens, known.cases)
    return Trust(gain, nearest, nearness, fits, _assumed(own, base, moves))


# ---- what a step is made of ------------------------------------------------------------------------------------------


def shares_of(planner: ModePlanner, plan: Plan, tokens: int, step_us: float | None = None) -> dict[str, Share]:
    """A step of a plan by the figures that it rests on. `step_us`: how long it takes, where not as the planner says."""
    shares: dict[str, Share] = {}
    for edge, count in plan.counted:
        for term in edge.terms:
            _add(shares, *_figure(term), planner.costs.estimate(term, tokens), count, planner.setup)
    for estimate in planner.fixed(tokens):
        if estimate.wire_bytes:
            _add(shares, "all_to_all", "communication", estimate, 1, planner.setup)
        else:
            _add(shares, _COMPUTE, "device", estimate, 1, planner.setup)
    rest = (planner.step_us(plan, tokens) if step_us is None else step_us) - _total(shares)
    if rest > _ROUNDING * _total(shares):
        shares["what else a step takes"] = Share(rest, "device", "assumed", frozenset())
    return shares


def _figure(term: Term) -> tuple[str, Kind]:
    work = term.work
    if isinstance(work, COMMUNICATION):
        group = getattr(work, "group", "tp") or "tp"
        return f"{work.op} by {getattr(work, 'impl', 'a fused kernel')} over {group}", "communication"
    return ("gemm" if isinstance(work, Gemm) else _PASSES), "device"


def _add(shares: dict[str, Share], name: str, kind: Kind, estimate: Estimate, count: int, setup: Setup) -> None:
    if not estimate.total_us:
        return
    known = shares.get(name, Share(0.0, kind, estimate.provenance, frozenset()))
    fields = known.fields | _fields(name, kind, estimate, setup)
    provenance = weakest({known.provenance, estimate.provenance})
    if kind == "device" and fields:
        provenance = "assumed"
    shares[name] = Share(known.time_us + estimate.total_us * count, kind, provenance, fields)


def _fields(name: str, kind: Kind, estimate: Estimate, setup: Setup) -> set[str]:
    """The assumed fields of the machine behind an estimate. A table has none; attention is in the compute alone."""
    hardware, links = setup.hardware, setup.hardware.links
    if estimate.provenance in _TABLES and name != _COMPUTE:
        return set()
    if kind == "communication":
        p = setup.parallelism
        far = links.inter_node if p.tp * p.pp > hardware.devices_per_node else None
        between = set() if far is None else _assumed_of(far, "links.inter_node")
        return _assumed_of(links.intra_node, "links.intra_node") | between
    memory = _assumed_of(hardware.memory, "memory") - {"memory.capacity_gb"}
    if name == _PASSES:
        return memory
    compute = _assumed_of(hardware.compute, "compute") - _unused_rates(setup)
    return memory | (compute if name == _COMPUTE else compute - {"compute.attention_efficiency"})


def _unused_rates(setup: Setup) -> set[str]:
    """Rates of types in which the model computes nothing."""
    dtypes, compute = setup.deployment.dtypes, setup.hardware.compute
    used = {WEIGHT_TYPES[dtypes.activations].rate, WEIGHT_TYPES[dtypes.weights].rate}
    if setup.model.index_topk is not None:  # an indexer scores in the first of these that there is
        used.add("fp8_tflops" if compute.fp8_tflops is not None else "int8_tops")
    return {f"compute.{record.rate}" for record in WEIGHT_TYPES.values() if record.rate not in used}


def _assumed_of(spec: Spec, path: str) -> set[str]:
    figures = {name: getattr(spec, name) for name in type(spec).model_fields}
    return {f"{path}.{name}" for name, f in figures.items() if isinstance(f, Figure) and f.provenance == "assumed"}


# ---- the range of the gain -------------------------------------------------------------------------------------------


def _total(shares: Shares) -> float:
    return sum(share.time_us for share in shares.values())


def _move(name: str, own: Shares, base: Shares, known: Summary, setup: Setup) -> float:
    """How far the logarithm of the gain moves, at most, when one figure moves by its spread."""
    of = [shares[name] for shares in (own, base) if name in shares]
    vendor, topology = setup.hardware.vendor, _shared_link(setup).topology
    spread = max(known.spread(vendor, share.kind, share.provenance, topology) for share in of)
    value = math.log(_total(base) / _total(own))
    moved = []
    for factor in (math.exp(spread), math.exp(-spread)):
        totals = [_total(s) + (factor - 1) * (s[name].time_us if name in s else 0.0) for s in (base, own)]
        moved.append(abs(math.log(totals[0] / totals[1]) - value))
    return max(moved)


def _assumed(own: Shares, base: Shares, moves: Mapping[str, float]) -> tuple[str, ...]:
    """Assumed fields of what moves the gain, or takes a tenth of the step; what moves it most comes first."""
    total = _total(own)
    found: dict[str, float] = {}
    for name, move in moves.items():
        share = own.get(name) or base[name]
        if move >= _MATTERS or share.time_us >= 0.1 * total:
            for field in share.fields:
                found[field] = max(found.get(field, 0.0), move)
    return tuple(sorted(found, key=lambda field: (-found[field], field)))


# ---- the nearest back-test -------------------------------------------------------------------------------------------


def nearest_case(setup: Setup, plan: Plan, tokens: int, cases: Iterable[CaseRecord]) -> tuple[CaseRecord, str]:
    """The nearest back-test, and how near it is in words."""
    hardware, ranks, link = setup.hardware, setup.parallelism.tp, _shared_link(setup)
    ops = {edge.op.name for edge, _ in plan.counted if edge.op.kind.is_collective}
    message = float(tokens * setup.model.hidden_size * DTYPE_BYTES[setup.deployment.dtypes.activations])

    def distance(case: CaseRecord) -> tuple[int, int, float, int, int, str]:
        if case.machine == hardware.name:
            machine = 0
        elif case.vendor == hardware.vendor:
            machine = 1 if case.topology == link.topology else 2
        else:
            machine = 3
        both = ops | set(case.ops)
        shared = len(ops & set(case.ops)) / len(both) if both else 1.0
        measured = 2 if case.unit != "ratio" else 0 if case.quantity in _WHOLE_STEPS else 1
        return machine, _octaves(case.ranks, ranks), -shared, _octaves(case.message_bytes, message), measured, case.id

    found = min(cases, key=distance)
    machine, octaves, shared, sizes, _, _ = distance(found)
    return found, _in_words(machine, octaves, shared, sizes, found, message)


def _shared_link(setup: Setup) -> Link:
    """The link that all ranks share."""
    links = setup.hardware.links
    spans = setup.parallelism.tp > setup.hardware.devices_per_node
    return links.inter_node if spans and links.inter_node is not None else links.intra_node


def _octaves(a: float, b: float) -> int:
    return abs(round(math.log2(a / b))) if a > 0 and b > 0 else 0


def _in_words(machine: int, octaves: int, shared: float, sizes: int, case: CaseRecord, message: float) -> str:
    """How a back-test differs from the plan; empty where it does not."""
    how = ("", "links alike", "other links", "another vendor's")[machine]
    said = [f"on {case.machine}, {how}"] if how else []
    if octaves:
        said.append(f"{case.ranks} ranks")
    if shared > -0.5:
        said.append("other ops")
    if sizes:
        said.append(f"messages {2**sizes}x as {'large' if case.message_bytes > message else 'small'}")
    return ", ".join(said)
