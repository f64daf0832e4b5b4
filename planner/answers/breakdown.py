"""What a forward under a plan is made of: time by part, bytes on the wire, peak activation memory, provenance.

The parts add up to the step. `communication` holds every collective of the forward, the dispatch and combine of an
all-to-all MoE among them; no overlap with compute is assumed. An op that is one kernel is communication as a whole,
with the quantisation and the norm that the kernel does on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cost.estimate import Estimate, weakest
from ..cost.terms import COMMUNICATION, Gemm, Term
from ..fit.peaks import peak_activation_bytes
from ..search.graph import Plan
from ..search.planning import ModePlanner
from ..strategy.words import NUMERICS_CLASSES, Numerics, Provenance

# In the order in which reports stack them. `latent_gemm` is q_a/kv_a alone; `compute` is what no choice changes.
# `host_wait` is what the device waits for launches.
PARTS = ("communication", "quantize", "norm", "residual", "latent_gemm", "padding", "compute", "host_wait")


@dataclass(frozen=True)
class Breakdown:
    """One forward under one plan: times in us, bytes per rank."""

    parts: dict[str, float]
    provenances: dict[str, Provenance]  # of each part that takes time
    sources: tuple[str, ...]  # where the times of the collectives come from
    step_us: float
    wire_bytes: float
    activation_bytes: int
    numerics: Numerics

    @property
    def communication_us(self) -> float:
        """Time of all collectives."""
        return self.parts["communication"]

    @property
    def extrapolated(self) -> bool:
        """True where a collective lies beyond the ends of its table."""
        return any(is_extrapolated(source) for source in self.sources)

    def provenance_of(self, *parts: str) -> Provenance:
        """The weakest provenance among some parts: what their sum rests on."""
        return weakest({self.provenances[part] for part in parts if part in self.provenances})


def breakdown(planner: ModePlanner, plan: Plan, tokens: int) -> Breakdown:
    """The parts of a forward of `tokens` rows under a plan."""
    tally = _Tally()
    for edge, count in plan.counted:
        for term in edge.terms:
            tally.add(_part(term), planner.costs.estimate(term, tokens), count)
    for estimate in planner.fixed(tokens):
        tally.add("communication" if estimate.wire_bytes else "compute", estimate)
    if waits := planner.host_wait_us(plan, tokens):
        tally.wait(waits, planner.pricer.host.provenance)
    return Breakdown(
        parts=tally.times,
        provenances={part: weakest(found) for part, found in tally.provenances.items()},
        sources=tuple(dict.fromkeys(tally.sources)),
        step_us=planner.step_us(plan, tokens),
        wire_bytes=tally.wire_bytes,
        activation_bytes=peak_activation_bytes(planner, plan, tokens),
        numerics=NUMERICS_CLASSES[plan.numerics_rank],
    )


def is_extrapolated(source: str) -> bool:
    """True for the source of a time that a table gives beyond its ends."""
    return "extrapolated" in source


def _part(term: Term) -> str:
    if isinstance(term.work, COMMUNICATION):
        return "communication"  # also where it gathers a residual
    if term.category == "latent_gemm" and not isinstance(term.work, Gemm):
        return "padding"  # the copy that lays the latents side by side
    return term.category


class _Tally:
    """Sums by part."""

    def __init__(self) -> None:
        self.times = dict.fromkeys(PARTS, 0.0)
        self.provenances: dict[str, set[Provenance]] = {}
        self.sources: list[str] = []
        self.wire_bytes = 0.0

    def wait(self, us: float, provenance: Provenance) -> None:
        """The device waits for the host."""
        self.times["host_wait"] = us
        self.provenances["host_wait"] = {provenance}

    def add(self, part: str, estimate: Estimate, count: int = 1) -> None:
        if not estimate.total_us:
            return
        self.times[part] += estimate.total_us * count
        self.provenances.setdefault(part, set()).add(estimate.provenance)
        if part == "communication":
            self.wire_bytes += estimate.wire_bytes * count
            self.sources.append(f"{estimate.provenance}: {estimate.source}")
