"""The report of one strategy file: what it does, and what every uniform strategy would do in its place."""

from __future__ import annotations

from pathlib import Path

from ..answers.from_file import plan_of
from ..answers.made_for import MadeFor, made_for, told_otherwise
from ..search.offers import has_own_kernels
from ..strategy.errors import InputError, NoLegalPlanError
from ..strategy.file import StrategyFile, load
from ..what_if.evaluation import OWN_NOTE, Evaluator
from ..what_if.marginal_answers import Asker
from .page import Page, write_page
from .sections import facts, headline, sections, subtitle
from .study import Range, Study

NO_OVERLAP = "No overlap of communication and compute is assumed, but in flags of a server that have it"
NOTES = [
    "Times are predictions; the tables say what each rests on",
]


def _overlap(strategy: StrategyFile) -> str:
    return f"{NO_OVERLAP}, and where rows are pushed" if strategy.pushes_rows else NO_OVERLAP


def report_strategy(file: str, deployment: str | None, overrides: tuple[str, ...], output: str | Path) -> Page:
    """Write the page of a strategy file; InputError where it was made for something else than the deployment."""
    strategy = load(file)
    found = made_for(strategy, file, deployment, overrides)
    study = _study(strategy, file, found)
    mode = study.modes[0]
    asker = Asker(found.deployment, found.overrides, found.setup, mode, study.ranges[mode][-1].last)
    page = Page(
        title=headline(study),
        subtitle=f"{file}: {subtitle(study)}",
        facts=facts(study),
        sections=sections(study),
        answers=[(a.question, f"{a.answer[0].upper()}{a.answer[1:]}.") for a in asker.answers()],
        notes=[*study.notes, *([OWN_NOTE] if has_own_kernels(study.setup) else []), _overlap(strategy), *NOTES],
    )
    write_page(page, output)
    return page


def _study(strategy: StrategyFile, file: str, found: MadeFor) -> Study:
    setup = found.setup
    evaluator = Evaluator(setup)
    ranges: dict[str, list[Range]] = {}
    told: list[str] = []
    for mode, planned in strategy.modes.items():
        if mode not in setup.deployment.modes:
            raise InputError(
                f"the deployment has no such mode; it has {', '.join(setup.deployment.modes)}",
                file=file,
                field=f"modes.{mode}",
            )
        planner = evaluator.planner(mode)
        try:
            planner.graph()
        except NoLegalPlanError as error:
            raise error.in_file(setup.file) from None
        ranges[mode] = [Range(r.first, r.last, plan_of(planner, strategy, r.first, file)[0]) for r in planned]
        steps = (planner.step_us(r.plan, r.last) for r in ranges[mode])
        told += [told_otherwise(mode, r, r.last, step_us) for r, step_us in zip(planned, steps, strict=True)]
    notes = [f"{each}: {found.why_not_told}" for each in told if each]
    return Study(setup, ranges, found.load, evaluator, [*setup.notes, *found.notes, *notes])
