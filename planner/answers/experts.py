"""Experts over several ranks: is an all-to-all cheaper than all ranks seeing all rows, and by how much?

With `moe_backend: tensor_parallel` every rank takes all rows (all-reduced or gathered), and the sum that is left is
completed (all-reduced or scattered); with `all_to_all` a row goes to the ranks that own its experts, and back. The
whole step under the cheapest plan of each is compared, since the two want other ops around the experts too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..cost.estimate import weakest
from ..descriptions.checks import check_parallelism
from ..descriptions.setup import Setup
from ..executors import load_executor
from ..search.planning import ModePlanner
from ..strategy.errors import CommplanError
from ..strategy.layout import ALL_TO_ALL, TENSOR_PARALLEL
from ..strategy.words import MoeBackend, Provenance

_PRICES_BOTH = "plan_only"


@dataclass(frozen=True)
class AtTokens:
    """Steps of one forward by backend, in us, and what the times of dispatch and combine rest on."""

    mode: str
    tokens: int
    step_us: dict[MoeBackend, float]
    exchange: Provenance

    @property
    def cheaper(self) -> MoeBackend:
        """The backend with the shorter step; `tensor_parallel` of two that are equal."""
        return min((TENSOR_PARALLEL, ALL_TO_ALL), key=lambda backend: self.step_us[backend])

    @property
    def gain(self) -> float:
        """The longer step over the shorter one."""
        return max(self.step_us.values()) / min(self.step_us.values())


@dataclass(frozen=True)
class Experts:
    """The comparison at some token counts, or what it lacks.

    priced_as  the executor that both are priced under, where the deployment's own does not run both
    ep         of the all-to-all, where the deployment has another
    """

    ranks: int
    at: tuple[AtTokens, ...]
    missing: str | None = None
    priced_as: str | None = None
    ep: int | None = None


def compare_experts(setup: Setup, counts: list[tuple[str, int]]) -> Experts | None:
    """Both backends at modes and token counts; None where experts are on one rank, or the model has none."""
    p = setup.parallelism
    if p.ep == 1 or not setup.model.is_moe:
        return None
    runs_both = all(backend in setup.executor.moe_backends for backend in (TENSOR_PARALLEL, ALL_TO_ALL))
    base = setup if runs_both else _under(setup, _PRICES_BOTH)
    ep = None if p.ep == p.tp else p.tp
    both = {ALL_TO_ALL: _with(base, ALL_TO_ALL, p.tp), TENSOR_PARALLEL: _with(base, TENSOR_PARALLEL, p.ep)}
    try:
        for each in both.values():
            check_parallelism(each, each.parallelism)
        at = tuple(_at(both, counts))
    except CommplanError as error:
        where = f"{error.field}: " if error.field else ""
        return Experts(p.ep, (), f"{where}{error.message}")
    return Experts(p.ep, at, None, None if runs_both else _PRICES_BOTH, ep)


def _under(setup: Setup, executor: str) -> Setup:
    found = load_executor(executor).on(setup.hardware.compute_capability, setup.parallelism.tp)
    return replace(setup, executor=found)


def _with(setup: Setup, backend: MoeBackend, ep: int) -> Setup:
    split = setup.deployment.parallelism.model_copy(update={"moe_backend": backend, "ep": ep})
    return replace(setup, deployment=setup.deployment.model_copy(update={"parallelism": split}))


def _at(both: dict[MoeBackend, Setup], counts: list[tuple[str, int]]) -> Iterator[AtTokens]:
    planners: dict[tuple[MoeBackend, str], ModePlanner] = {}
    for mode, tokens in counts:
        steps: dict[MoeBackend, float] = {}
        for backend, setup in both.items():
            planner = planners.get((backend, mode)) or ModePlanner(setup, mode)
            planners[backend, mode] = planner
            steps[backend] = planner.step_us(planner.best(tokens), tokens)
        exchanged = {e.provenance for e in planners[ALL_TO_ALL, mode].fixed(tokens) if e.wire_bytes}
        yield AtTokens(mode, tokens, steps, weakest(exchanged))
