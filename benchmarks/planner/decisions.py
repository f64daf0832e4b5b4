"""Decisions against every published measurement at hand: is what the planner chooses what was fastest?

make bench-decisions, or: python benchmarks/planner/decisions.py [--markdown] [--wrong]

A row (decision_rows.py) is a system, a number of ranks and a message size for which two or more impls of one sum were
measured by one source: of the collective alone, with the norm that follows, with quantised sums allowed. The decision
of each rule is one of these impls: right within 2 % of the fastest, its regret what it takes longer. commplan decides
by price, once with all tables and once with all those of the system left out, so that it must borrow from other
machines or use formulas. End-to-end comparisons are the ratios among the back-tests: right is the side of 1 on which
the published figure lies, or within 2 % of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from decision_rows import ROW_SOURCES, SOURCES, Rival, Row, calibration, machine, rows
from decision_rules import RULES

from commplan.planner.backtest.case import read_case, shipped_cases
from commplan.planner.backtest.run import run_case
from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.kernels import DeviceCosts
from commplan.planner.cost.measured import MeasuredKernels
from commplan.planner.cost.terms import OneKernel
from commplan.planner.descriptions.deployment import DTYPE_BYTES
from commplan.planner.descriptions.lending import Lender, lenders_of
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup, UsedCalibration
from commplan.planner.descriptions.weight_types import WeightFormat
from commplan.planner.executors import Impl
from commplan.planner.executors.launches import ONE_LAUNCH
from commplan.planner.strategy.vendors import BACKENDS

NEAR = 0.02
_WIDTH = 5120  # of the rows of a kernel that was measured for any


class Decisions:
    """What commplan chooses among the impls of a row, by price."""

    def __init__(self) -> None:
        self._base = load_setup("qwen3-32b-h100-tp2", ("executor=plan_only",))
        self._costs: dict[tuple[str, str, int, bool], CollectiveCosts] = {}

    def choice(self, row: Row, with_tables: bool) -> str | None:
        """The cheapest impl that has a price."""
        key = (row.source, row.machine, row.ranks, with_tables)
        if key not in self._costs:
            self._costs[key] = CollectiveCosts(self._setup(row, with_tables))
        costs = self._costs[key]
        prices, known = {}, self._base.executor.impls
        for label, rival in row.rivals.items():
            impl = rival.impl
            if impl in known and not (with_tables and costs.is_measured(impl)) and self._lacks(known[impl], row):
                continue
            if impl in BACKENDS or impl in ONE_LAUNCH or costs.is_measured(impl):
                prices[label] = self._price(costs, rival, row) + self._norm_us(rival, row, with_tables)
        return min(prices, key=lambda label: prices[label], default=None)

    def _price(self, costs: CollectiveCosts, rival: Rival, row: Row) -> float:
        """By one kernel where the impl is one, else as a collective."""
        known, size = self._base.executor.impls, row.message_bytes
        if rival.impl not in known or known[rival.impl].kind == "library":
            return costs.collective(row.op, rival.impl, row.dtype, "tp", size).total_us
        element = DTYPE_BYTES[row.dtype]
        width = row.width or _WIDTH
        work = OneKernel(rival.op, rival.impl, row.dtype, "tp", element, rival.algorithm, None, rival.wire)
        rows_of_width = size // (width * element)
        if rows_of_width == 0:  # less than a row: what travels is the message all the same
            width, rows_of_width = size // element, 1
        return costs.one_kernel(work._replace(scale_group=rival.scale_group), rows_of_width, width).total_us

    def _norm_us(self, rival: Rival, row: Row, with_tables: bool) -> float:
        """The residual add and norm, where they follow and the impl has them not inside."""
        known = self._base.executor
        if row.width is None or (rival.impl in known.impls and known.impls[rival.impl].fuses_norm):
            return 0.0
        hardware = machine(row.machine)
        measured = MeasuredKernels(self._setup(row, with_tables).calibrations)
        device = DeviceCosts(hardware, WeightFormat(row.dtype, None), row.dtype, measured)
        kernels = known.kernels_of("add_norm", hardware.backend)
        return device.passes(kernels, row.message_bytes / DTYPE_BYTES[row.dtype], 1, row.width).total_us

    def _lacks(self, impl: Impl, row: Row) -> bool:
        """What the planner would not offer on this machine."""
        link = machine(row.machine).links.intra_node
        reaches = impl.topologies is None or row.ranks <= 2 or link.topology in impl.topologies
        return not reaches or (impl.peer_access and not link.has_peer_access) or (impl.multicast and not link.multicast)

    def _setup(self, row: Row, with_tables: bool) -> Setup:
        deployment = self._base.deployment
        parallelism = deployment.parallelism.model_copy(update={"tp": row.ranks, "attn_dp": 1})
        hardware = machine(row.machine)
        setup = replace(
            self._base,
            deployment=deployment.model_copy(update={"parallelism": parallelism}),
            hardware=hardware.model_copy(update={"calibrations": ()}),
            calibrations=(),
        )
        setup = replace(setup, lent=tuple(self._lent(setup, row.system)))
        if not with_tables:
            return setup
        own = dict.fromkeys((row.source, *(use.file for use in hardware.calibrations)))
        return replace(setup, calibrations=tuple(UsedCalibration(calibration(name), None) for name in own))

    def _lent(self, setup: Setup, system: str) -> Iterator[UsedCalibration]:
        mine = {name for name, _, of in SOURCES if of == system}
        mine |= {name for names, _, of in ROW_SOURCES if of == system for name in names}

        def lends(lender: Lender) -> bool:
            return lender.calibration not in mine

        for lender, scale in lenders_of(setup.hardware, setup.parallelism, lends):
            yield UsedCalibration(calibration(lender.calibration), "nearest link", scale)


@dataclass(frozen=True)
class Score:
    right: int
    rows: int
    regret: float  # mean over the rows with a decision

    @classmethod
    def of(cls, regrets: Iterable[float | None]) -> Score:
        found = list(regrets)
        known = [r for r in found if r is not None]
        return cls(sum(r <= NEAR for r in known), len(found), fmean(known) if known else 0.0)

    def __str__(self) -> str:
        return f"{self.right / self.rows:.1%}, {self.regret:.1%}"


def ends() -> tuple[list[str], int]:
    """End-to-end comparisons on whose wrong side the prediction lies, and how many there are."""
    wrong, count = [], 0
    for path in shipped_cases():
        case = read_case(path)
        if case.to is None or case.not_comparable is not None or case.published == 1:
            continue
        outcome = run_case(case, path)
        if outcome.predicted is None:
            continue
        count += 1
        same_side = (outcome.predicted - 1) * (case.published - 1) > 0
        if not same_side and abs(outcome.predicted - case.published) > NEAR:
            wrong.append(f"{case.id}: {outcome.predicted:.3f} predicted, {case.published:.3f} published")
    return wrong, count


KINDS_OF_ROWS: dict[str, Callable[[Row], bool]] = {
    "a collective alone": lambda row: row.wire is None and row.width is None,
    "with the norm": lambda row: row.wire is None and row.width is not None,
    "quantised allowed": lambda row: row.wire is not None,
}


def _in_order(found: list[Row]) -> dict[str, None]:
    return dict.fromkeys(row.system for row in found)


def table(found: list[Row], chosen: dict[str, list[str | None]], markdown: bool) -> str:
    """Systems by rules: how many are right, and the mean regret."""
    regrets = {
        name: [row.regret(choice) for row, choice in zip(found, choices, strict=True)]
        for name, choices in chosen.items()
    }
    lines = [["system", "rows", *chosen]]
    kinds = {name: [i for i, row in enumerate(found) if of(row)] for name, of in KINDS_OF_ROWS.items()}
    systems = {name: [i for i, row in enumerate(found) if row.system == name] for name in _in_order(found)}
    for system, here in (systems | kinds | {"all": list(range(len(found)))}).items():
        cells = [str(Score.of(regrets[name][i] for i in here)) for name in chosen]
        lines.append([system, str(len(here)), *cells])
    if markdown:
        lines.insert(1, ["---"] * len(lines[0]))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--markdown", action="store_true", help="a Markdown table, as docs/accuracy.md has it")
    parser.add_argument("--wrong", action="store_true", help="list every wrong row of commplan's")
    arguments = parser.parse_args()
    found, decisions = list(rows()), Decisions()
    deciders: dict[str, Callable[[Row], str | None]] = {
        "commplan, all tables": lambda row: decisions.choice(row, True),
        "commplan, none of the system": lambda row: decisions.choice(row, False),
        **RULES,
    }
    chosen = {name: [decide(row) for row in found] for name, decide in deciders.items()}
    print(f"{len(found)} rows; right within {NEAR:.0%} of the fastest, and mean regret")
    print(table(found, chosen, arguments.markdown))
    if arguments.wrong:
        for name in list(chosen)[:2]:
            print(f"\nWrong, {name}:")
            for row, choice in zip(found, chosen[name], strict=True):
                regret = row.regret(choice)
                if regret is None or regret > NEAR:
                    best = min(row.times, key=lambda impl: row.times[impl])
                    what = f"{row.what}, {row.message_bytes} bytes"
                    print(f"  {row.source:18} {what}: {choice}, best {best}, {regret or 0:.1%}  {row.times}")
    wrong, count = ends()
    print(f"\nEnd to end: {count - len(wrong)} of {count} on the published side of 1")
    for line in wrong:
        print(f"  {line}")


if __name__ == "__main__":
    main()
