"""Decisions against every published measurement at hand: is what the planner chooses what was fastest?

make bench-decisions, or: python benchmarks/planner/decisions.py [--markdown] [--wrong]

A row is a system, a number of ranks and a message size for which two or more impls of one collective were measured by
one source. The decision of each rule is one of these impls: right within 2 % of the fastest, its regret what it takes
longer. commplan decides by price, once with all tables and once with all those of the system left out, so that it must
borrow from other machines or use formulas. End-to-end comparisons are the ratios among the back-tests: right is the side
of 1 on which the published figure lies, or within 2 % of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from decision_rules import RULES

from commplan.planner.backtest.case import read_case, shipped_cases
from commplan.planner.backtest.run import run_case
from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.calibration import Calibration
from commplan.planner.descriptions.hardware import Hardware
from commplan.planner.descriptions.lending import Lender, lenders_of
from commplan.planner.descriptions.loader import find, load_setup
from commplan.planner.descriptions.setup import Setup, UsedCalibration
from commplan.planner.executors import Impl
from commplan.planner.executors.launches import ONE_LAUNCH
from commplan.planner.strategy.vendors import BACKENDS
from commplan.planner.strategy.yaml_file import read_mapping

NEAR = 0.02

# Every source with rival impls: its calibration, the machine, the system whose tables are left out.
SOURCES = (
    ("a100-sxm", "a100-8", "A100"),
    ("h100-sxm", "h100-8", "H100"),
    ("h100-vllm", "h100-8", "H100"),
    ("h100-custom-2025", "h100-8", "H100"),
    ("symm-mem-recipes", "h100-8", "H100"),
    ("h200-sxm", "h200-8", "H200"),
    ("h200-mscclpp", "h200-8", "H200"),
    ("h200-2-rivals", "h200-2", "H200"),
    ("b200-sxm", "b200-8", "B200"),
    ("b200-vllm", "b200-8", "B200"),
    ("b300-sxm", "b300-8", "B300"),
    ("b300-vllm", "b300-8", "B300"),
    ("gb200", "gb200-nvl72", "GB200"),
    ("gb200-mscclpp", "gb200-nvl72", "GB200"),
    ("gb300", "gb300-nvl72", "GB300"),
    ("l40s", "l40s-8", "L40S"),
    ("rtx-pro-6000", "rtx-pro-6000-8", "RTX PRO 6000"),
    ("sm120-pcie", "rtx-pro-6000-8", "RTX PRO 6000"),
    ("v100-pcie", "v100-pcie-4", "V100"),
)
_EAGER = "_eager"


@dataclass(frozen=True)
class Row:
    """Rival times of one collective; `width` where an impl works on rows."""

    source: str
    machine: str
    system: str
    op: str
    dtype: str
    ranks: int
    message_bytes: int
    times: dict[str, float]

    def regret(self, impl: str | None) -> float | None:
        """How much longer than the fastest an impl takes; None where there was no decision."""
        return None if impl is None else self.times[impl] / min(self.times.values()) - 1


def rows() -> Iterator[Row]:
    """All rows of all sources."""
    for name, machine, system in SOURCES:
        grouped: dict[tuple[str, str, int, int, bool], dict[str, float]] = {}
        for table in calibration(name).tables:
            if table.dtype == "int8" or table.algorithm is not None or table.width is not None:
                continue
            eager = table.impl.endswith(_EAGER)
            for size, latency in zip(table.message_bytes, table.latency_us, strict=True):
                key = (table.op, table.dtype, table.group_size, size, eager)
                grouped.setdefault(key, {}).setdefault(table.impl.removesuffix(_EAGER), latency)
        for (op, dtype, ranks, size, _), times in grouped.items():
            if len(times) > 1:
                yield Row(name, machine, system, op, dtype, ranks, size, times)


def calibration(name: str) -> Calibration:
    path = find(name, "calibrations", None, "calibration")
    return build(Calibration, read_mapping(path), str(path))


def machine(name: str) -> Hardware:
    path = find(name, "hardware", None, "hardware")
    return build(Hardware, read_mapping(path), str(path))


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
        for impl in row.times:
            if impl in known and not (with_tables and costs.is_measured(impl)) and self._lacks(known[impl], row):
                continue
            if impl in BACKENDS or impl in ONE_LAUNCH or costs.is_measured(impl):
                prices[impl] = costs.collective(row.op, impl, row.dtype, "tp", row.message_bytes).total_us
        return min(prices, key=lambda impl: prices[impl], default=None)

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
        mine = {name for name, _, of in SOURCES if of == system} | {f"{system.lower()}-2"}

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


def table(found: list[Row], chosen: dict[str, list[str | None]], markdown: bool) -> str:
    """Systems by rules: how many are right, and the mean regret."""
    regrets = {
        name: [row.regret(choice) for row, choice in zip(found, choices, strict=True)]
        for name, choices in chosen.items()
    }
    lines = [["system", "rows", *chosen]]
    for system in [*dict.fromkeys(row.system for row in found), "all"]:
        here = [i for i, row in enumerate(found) if system in (row.system, "all")]
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
                    print(
                        f"  {row.source:18} {row.op} over {row.ranks}, {row.message_bytes} bytes: {choice}, best {best}, {regret or 0:.1%}  {row.times}"
                    )
    wrong, count = ends()
    print(f"\nEnd to end: {count - len(wrong)} of {count} on the published side of 1")
    for line in wrong:
        print(f"  {line}")


if __name__ == "__main__":
    main()
