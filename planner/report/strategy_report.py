"""The report of one strategy file: what it does, and what every uniform strategy would do in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..answers.from_file import plan_of
from ..descriptions.loader import load_setup, preset_names
from ..descriptions.setup import Setup
from ..search.offers import has_own_kernels
from ..strategy.errors import InputError, NoLegalPlanError
from ..strategy.file import StrategyFile, load
from ..what_if.evaluation import OWN_NOTE, Evaluator
from ..what_if.marginal_answers import Asker
from .page import Page, write_page
from .sections import facts, headline, sections, subtitle
from .study import Range, Study

NOTES = [
    "No overlap of communication and compute is assumed, but in flags of a server that have it",
    "Times are predictions; the tables say what each rests on",
]


def report_strategy(file: str, deployment: str | None, overrides: tuple[str, ...], output: str | Path) -> Page:
    """Write the page of a strategy file; InputError where it was made for something else than the deployment."""
    strategy = load(file)
    name = deployment or _preset_of(strategy, file)
    setup = load_setup(name, overrides)
    study = _study(strategy, file, setup, lambda *texts: load_setup(name, (*overrides, *texts)))
    mode = study.modes[0]
    asker = Asker(name, overrides, setup, mode, study.ranges[mode][-1].last)
    page = Page(
        title=headline(study),
        subtitle=f"{file}: {subtitle(study)}",
        facts=facts(study),
        sections=sections(study),
        answers=[(a.question, f"{a.answer[0].upper()}{a.answer[1:]}.") for a in asker.answers()],
        notes=[*study.notes, *([OWN_NOTE] if has_own_kernels(study.setup) else []), *NOTES],
    )
    write_page(page, output)
    return page


def _preset_of(strategy: StrategyFile, file: str) -> str:
    if strategy.deployment.name in preset_names("deployments"):
        return strategy.deployment.name
    raise InputError(
        "the deployment is no preset: name its file with --deployment",
        file=file,
        field="deployment.name",
        value=strategy.deployment.name,
    )


def _study(strategy: StrategyFile, file: str, setup: Setup, load_more: Callable[..., Setup]) -> Study:
    evaluator = Evaluator(setup)
    ranges: dict[str, list[Range]] = {}
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
    notes = list(setup.notes)
    for part in ("hardware", "deployment"):
        if getattr(strategy, part).fingerprint != setup.fingerprints[part]:
            notes.append(f"the {part} has changed since the file was planned: times here are of today's description")
    return Study(setup, ranges, load_more, evaluator, notes)
