"""The step of a strategy file at any token count: priced anew for what it was made for, else as the file predicts.

A prediction is of the last count of a range, and an edited file holds those of other ops. So a file is priced where
what it was made for is at hand, and is what it was or at least the same for both files; where not, its predictions are
all there is, at their own counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..descriptions.loader import preset_names
from ..descriptions.setup import Setup
from ..search.planning import ModePlanner
from ..strategy.errors import CommplanError, InputError
from ..strategy.file import StrategyFile
from .from_file import plan_of
from .made_for import made_for, told_otherwise

_Planners = dict[tuple[str, ...], ModePlanner]


@dataclass
class FileSteps:
    """Prices one file. `notes` say why it is not priced, or that it is for something that is `unchanged` no more."""

    strategy: StrategyFile
    file: str
    setup: Setup | None
    notes: list[str]
    unchanged: bool
    planners: _Planners = field(default_factory=dict)
    stale: bool = False  # its predictions were found to be of other ops

    def __call__(self, mode: str, tokens: int) -> float | None:
        """The step in us; None where nobody can say."""
        if self.setup is not None:
            try:
                return self._priced(self.setup, mode, tokens)
            except CommplanError as error:
                self.setup = None
                self.notes.append(f"times are those that the file predicts: {error.field}: {error.message}")
        predicted = self.strategy.range_of(mode, tokens).predicted
        return predicted.step_us if predicted is not None and predicted.tokens == tokens else None

    def _priced(self, setup: Setup, mode: str, tokens: int) -> float:
        if mode not in setup.deployment.modes:
            raise InputError("the deployment has no such mode", file=self.file, field=f"modes.{mode}")
        key = (mode, *setup.fingerprints.values(), setup.executor.name)
        if key not in self.planners:
            self.planners[key] = ModePlanner(setup, mode)
        planner = self.planners[key]
        plan, _ = plan_of(planner, self.strategy, tokens, self.file)
        step_us = planner.step_us(plan, tokens)
        if self.unchanged and (told := told_otherwise(mode, self.strategy.range_of(mode, tokens), tokens, step_us)):
            self.stale = True
            self.notes.append(f"{told}: it was edited, or planned by another version")
        return step_us


def file_steps(files: Sequence[tuple[str, StrategyFile]], deployment: str | None = None) -> list[FileSteps]:
    """For each file; files that were made for the same thing share their planners.

    Where that has changed they can still be held against each other, by what it is today.
    """
    planners: _Planners = {}
    alike = len({(each.model, each.hardware, each.deployment, each.executor) for _, each in files}) == 1
    return [FileSteps(strategy, file, *_setup(strategy, file, deployment, alike), planners) for file, strategy in files]


def _setup(
    strategy: StrategyFile, file: str, deployment: str | None, alike: bool
) -> tuple[Setup | None, list[str], bool]:
    """What a file is priced for, what is to be said of that, and whether it is what the file was made for."""
    if deployment is None and strategy.deployment.name not in preset_names("deployments"):
        why = f"{strategy.deployment.name} is no preset (name its file with --deployment)"
        return None, [f"times are those that the file predicts: {why}"], False
    try:
        found = made_for(strategy, file, deployment)
    except CommplanError as error:
        return None, [f"times are those that the file predicts: what it was made for cannot be read: {error}"], False
    if found.differs and alike:
        return found.setup, [f"{each}: times are of what it is now" for each in found.differs], False
    if found.differs:
        return None, [f"{each}: times are those that the file predicts" for each in found.differs], False
    return found.setup, [], True
