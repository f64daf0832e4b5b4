"""Runs a case: the prediction over its token counts, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from ..answers.breakdown import is_extrapolated
from ..cost.estimate import weakest
from ..descriptions.loader import load_setup, preset_names
from ..descriptions.setup import Setup
from ..search.planning import ModePlanner
from ..strategy.errors import InputError, did_you_mean
from ..strategy.words import Provenance
from .case import Case
from .quantities import QUANTITIES, Figure, NotComparableError, of_collective, of_plan

INSIDE, OUTSIDE, NOT_COMPARABLE = "inside", "outside", "not comparable"


@dataclass(frozen=True)
class Outcome:
    """A case with what was predicted. `band`: the least and the most over the token counts of the case."""

    case: Case
    predicted: float | None
    band: tuple[float, float] | None
    unit: str
    verdict: str
    reason: str
    provenance: Provenance | None
    sources: tuple[str, ...]

    @property
    def extrapolated(self) -> bool:
        """True where a collective lies beyond the ends of its table."""
        return any(is_extrapolated(source) for source in self.sources)

    @cached_property
    def error(self) -> float | None:
        """Predicted over published, less one."""
        if self.predicted is None or self.case.published == 0:
            return None
        return self.predicted / self.case.published - 1


def run_case(case: Case, file: str | Path) -> Outcome:
    """The outcome of a case; raises InputError naming the case file where its deployment cannot be read."""
    unit = "us" if case.op else "ratio" if case.to is not None else QUANTITIES[case.quantity].unit
    if case.not_comparable is not None:
        return Outcome(case, None, None, unit, NOT_COMPARABLE, case.not_comparable, None, ())
    try:
        figures = _figures(case, setup_of(case, file))
    except NotComparableError as why:
        return Outcome(case, None, None, unit, NOT_COMPARABLE, str(why), None, ())
    except InputError as error:
        raise error.in_file(str(file)) from None
    values = [figure.value for figure in figures]
    predicted = fmean(values)
    verdict = INSIDE if case.low <= predicted <= case.high else OUTSIDE
    return Outcome(
        case,
        predicted,
        (min(values), max(values)),
        unit,
        verdict,
        "",
        weakest({figure.provenance for figure in figures}),
        tuple(dict.fromkeys(source for figure in figures for source in figure.sources)),
    )


def setup_of(case: Case, file: str | Path) -> Setup:
    """The deployment of a case: a preset, or a path beside the case file or here."""
    beside = Path(file).parent / case.deployment
    preset = case.deployment in preset_names("deployments")
    return load_setup(case.deployment if preset or not beside.is_file() else str(beside), case.overrides)


def _figures(case: Case, setup: Setup) -> list[Figure]:
    if case.mode is not None and case.mode not in setup.deployment.modes:
        hint = did_you_mean(case.mode, setup.deployment.modes)
        raise InputError(f"{setup.deployment.name} has no such mode; {hint}", field="mode", value=case.mode)
    if case.op is not None:
        return [of_collective(setup, case.op)]
    assert case.mode is not None
    assert case.of is not None
    planner = ModePlanner(setup, case.mode)
    figures = []
    for tokens in case.tokens:
        figure = of_plan(planner, case.quantity, case.of, tokens)
        if case.to is not None:
            figure = _ratio(figure, of_plan(planner, case.quantity, case.to, tokens), str(case.to))
        figures.append(figure)
    return figures


def _ratio(of: Figure, to: Figure, name: str) -> Figure:
    if to.value == 0:
        raise NotComparableError(f"{name} takes no such time here, so there is no ratio to it")
    sources = tuple(dict.fromkeys((*of.sources, *to.sources)))
    return Figure(of.value / to.value, weakest({of.provenance, to.provenance}), sources)
