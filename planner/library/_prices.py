"""What prices a plan: the planners of its deployment, with the plan of every token count."""

from __future__ import annotations

from commplan.planner.answers.from_file import plan_of
from commplan.planner.answers.to_file import Chosen
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.graph import Plan as GraphPlan
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner
from commplan.planner.strategy.file import StrategyFile


class Prices:
    """Of a plan that was just made (`chosen`), or that a file holds."""

    def __init__(self, setup: Setup, strategy: StrategyFile, file: str, chosen: Chosen | None = None) -> None:
        self.setup, self.strategy, self.file = setup, strategy, file
        self.from_file = chosen is None
        self._chosen: Chosen = chosen if chosen is not None else {}

    def of(self, mode: str, tokens: int) -> tuple[ModePlanner, GraphPlan, StockPlanner]:
        """The planner of a mode, the plan of a token count, and the stock server's planner."""
        if mode not in self._chosen:
            planner = ModePlanner(self.setup, mode)
            self._chosen[mode] = planner, [], StockPlanner(planner)
        planner, ranges, stock = self._chosen[mode]
        for found in ranges:
            if found.first <= tokens <= found.last:
                return planner, found.plan, stock
        return planner, plan_of(planner, self.strategy, tokens, self.file)[0], stock

    def check(self) -> None:
        """Raise InputError where the file was made for something else, or has what this executor cannot run."""
        for mode, ranges in self.strategy.modes.items():
            for each in ranges:
                self.of(mode, each.last)
