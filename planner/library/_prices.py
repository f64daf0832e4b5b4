"""What prices a plan: the planners of its deployment, with the plan of every token count."""

from __future__ import annotations

from commplan.planner.answers.beyond_tables import beyond_tables
from commplan.planner.answers.from_file import plan_of
from commplan.planner.answers.made_for import MadeFor, made_for, told_otherwise
from commplan.planner.answers.to_file import Chosen
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.graph import Plan as GraphPlan
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import RangePlan, StrategyFile


class Prices:
    """Of a plan that was just made (`chosen`), or that a file holds."""

    def __init__(
        self,
        setup: Setup,
        strategy: StrategyFile,
        file: str,
        chosen: Chosen | None = None,
        made: MadeFor | None = None,
    ) -> None:
        self.setup, self.strategy, self.file = setup, strategy, file
        self._made = made
        self._chosen: Chosen = chosen if chosen is not None else {}

    def beyond_tables(self) -> list[str]:
        """A note, where at the last count of some range of a plan that was just made a time lies beyond the ends of its
        table. A file may hold ranges that its deployment has no longer."""
        if self._made is not None:
            return []
        where: dict[str, list[str]] = {}
        for mode, chosen in ((mode, chosen) for mode, ranges in self.strategy.modes.items() for chosen in ranges):
            planner, plan, stock = self.of(mode, chosen.last)
            own = beyond_tables(planner, plan, chosen.last)
            theirs = beyond_tables(stock.server, stock.default(chosen.last).plan, chosen.last) - own
            for each in sorted(own) + [f"the stock server's {each}" for each in sorted(theirs)]:
                where.setdefault(each, []).append(f"{mode} {chosen.first}-{chosen.last}")
        told = "; ".join(f"{each} ({', '.join(ranges)})" for each, ranges in where.items())
        return [f"beyond the ends of their tables, so no measurement: {told}"] if told else []

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

    @property
    def notes(self) -> list[str]:
        """Where the deployment is not what a file was made for."""
        return [] if self._made is None else self._made.notes

    def told_otherwise(self, mode: str, held: RangePlan) -> str:
        """That a file predicts another step of a range than its ops take; empty where it does not."""
        if self._made is None:
            return ""
        planner, plan, _ = self.of(mode, held.last)
        told = told_otherwise(mode, held, held.last, planner.step_us(plan, held.last))
        return f"{told}: {self._made.why_not_told}" if told else ""

    def check(self) -> None:
        """Raise InputError where the file was made for something else, or has what this executor cannot run."""
        for mode, ranges in self.strategy.modes.items():
            for each in ranges:
                self.of(mode, each.last)


def prices_of(
    strategy: StrategyFile,
    file: str,
    deployment: str | None = None,
    overrides: tuple[str, ...] = (),
    as_it_was: bool = False,
) -> Prices:
    """Of what a file was made for; with `as_it_was` an InputError where that has changed since."""
    how = "as in load(path, deployment=...)"
    made = made_for(strategy, file, deployment, overrides, how)
    if as_it_was and made.differs:
        raise InputError(f"{made.differs[0]}: to price it all the same name the deployment, {how}", file=file)
    return Prices(made.setup, strategy, file, made=made)
