"""What an explanation is asked of: a deployment, or a strategy file and what it was made for."""

from __future__ import annotations

from dataclasses import dataclass

from ..descriptions.loader import load_setup
from ..descriptions.setup import Setup
from ..search.graph import Plan
from ..search.planning import ModePlanner
from ..strategy.errors import InputError, did_you_mean
from ..strategy.file import StrategyFile, load
from .from_file import plan_of
from .made_for import is_strategy_file, made_for, told_otherwise


@dataclass(frozen=True)
class Asked:
    """A setup, and the strategy file that its choices are taken from; `notes` say where the two differ."""

    setup: Setup
    file: str = ""
    strategy: StrategyFile | None = None
    notes: tuple[str, ...] = ()
    why_not_told: str = ""

    def forward(self, mode: str | None, tokens: int | None) -> tuple[str, int]:
        """The forward that is asked about: by default the first mode, at the largest token count planned."""
        mode = self._mode(mode)
        first, last = self.setup.deployment.modes[mode].tokens
        if self.strategy is not None and mode in self.strategy.modes:
            ranges = self.strategy.modes[mode]
            first, last = ranges[0].first, ranges[-1].last
        if tokens is None:
            return mode, last
        if not first <= tokens <= last:
            message = f"{mode} is planned for {first} to {last} tokens"
            raise InputError(message, file=self.file or None, field="--tokens", value=tokens)
        return mode, tokens

    def _mode(self, mode: str | None) -> str:
        modes = self.setup.deployment.modes
        if mode is None:
            mode = next(iter(self.strategy.modes if self.strategy else modes))
            if mode not in modes:
                raise InputError("the deployment has no such mode", file=self.file, field=f"modes.{mode}")
        if mode not in modes:
            raise InputError(
                f"the deployment has no such mode; {did_you_mean(mode, modes)}", field="--mode", value=mode
            )
        return mode

    def chosen(self, planner: ModePlanner, tokens: int) -> tuple[Plan, tuple[int, int], list[str]]:
        """The plan of the range that holds a token count, that range, and where its file predicts another step."""
        if self.strategy is None:
            found = next(r for r in planner.ranges() if r.first <= tokens <= r.last)
            return found.plan, (found.first, found.last), []
        plan, served = plan_of(planner, self.strategy, tokens, self.file)
        at = served[1]
        ranged = self.strategy.range_of(planner.mode, at)
        otherwise = told_otherwise(planner.mode, ranged, at, planner.step_us(plan, at))
        return plan, served, [f"{otherwise}: {self.why_not_told}"] if otherwise else []


def asked_of(deployment: str | None, file: str | None, overrides: tuple[str, ...]) -> Asked:
    """What is asked about; a deployment need not be named where a strategy file names a preset."""
    if file is not None:
        strategy = load(file)
        found = made_for(strategy, file, deployment, overrides, "before --strategy")
        return Asked(found.setup, file, strategy, tuple(found.notes), found.why_not_told)
    if deployment is None:
        text = "a preset or path is expected, or --strategy with a file that was made for a preset"
        raise InputError(text, kind="usage", field="DEPLOYMENT")
    if is_strategy_file(deployment):
        raise InputError("a strategy file: name it with --strategy", file=deployment, field="DEPLOYMENT")
    return Asked(load_setup(deployment, overrides))
