"""Gains over the stock server, predicted beside measured ones.

    python benchmarks/planner/stock_gain.py [--markdown]

Measured by this project's prototype, two H200s, SGLang 0.5.23, triton attention: Qwen3-32B with all 64 layers at TP 2,
one prompt, prefill graphs off, time to first token, median of five, servers asked in turn. `ar` and `int8` are
commplan's own kernels with the norm inside (INT8 in two shots), `none` leaves every sum out and keeps the norms.

Each gain is the unmodified server's step over the other's, less 1: by the model alone, and with the measured steps of
the unmodified server given (`modes.prefill.measured_step_us`). `saved` is the same in ms, of the latter: the part of a
saved kernel that the measured step shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.graph import Plan, Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.stock import StockPlanner
from commplan.planner.strategy.op_kinds import INT8_ALL_REDUCE
from commplan.planner.strategy.ops import Op

DEPLOYMENT, MODE = "qwen3-32b-h200-tp2", "prefill"
STOCK_MS = {4096: 278.0, 8192: 610.4, 16384: 1541.0}
"""The middle of four servers: 276.4 to 279.6, 609.1 to 611.6, 1540.9 to 1543.4."""
MEASURED_MS = {
    "int8": {4096: 265.5, 8192: 589.6, 16384: 1496.4},
    "ar": {4096: 267.6, 8192: 596.1, 16384: 1518.8},
    "none": {4096: 254.2, 8192: 565.8, 16384: 1433.4},
}
_NORM = "commplan_triton_norm"
_OPS = {
    "int8": Op(INT8_ALL_REDUCE.name, algorithm="two_shot", impl=_NORM),
    "ar": Op("all_reduce", impl=_NORM),
}


@dataclass(frozen=True)
class Row:
    """One forward: what was measured, and what is predicted without and with the measured steps, in ms."""

    what: str
    tokens: int
    measured_ms: float
    stock_ms: float  # predicted by the model alone
    alone_ms: float
    given_ms: float  # with the measured steps

    @property
    def measured(self) -> float:
        """The gain that was measured."""
        return STOCK_MS[self.tokens] / self.measured_ms - 1

    @property
    def alone(self) -> float:
        """The gain by the model alone."""
        return self.stock_ms / self.alone_ms - 1

    @property
    def given(self) -> float:
        """The gain where the steps of the server are known."""
        return STOCK_MS[self.tokens] / self.given_ms - 1

    @property
    def shown(self) -> float:
        """The part of what is saved by the prediction with measured steps that the measured step shows."""
        return (STOCK_MS[self.tokens] - self.measured_ms) / (STOCK_MS[self.tokens] - self.given_ms)


def rows() -> Iterator[Row]:
    """Every forward that was measured."""
    steps = "{" + ", ".join(f"{tokens}: {ms * 1000:g}" for tokens, ms in STOCK_MS.items()) + "}"
    alone, given = _planner(), _planner(f"modes.{MODE}.measured_step_us={steps}")
    for tokens in STOCK_MS:
        stock_ms = StockPlanner(alone).default(tokens).step_us / 1000
        for what, measured in MEASURED_MS.items():
            predicted = (_step_ms(planner, what, tokens) for planner in (alone, given))
            yield Row(what, tokens, measured[tokens], stock_ms, *predicted)


def _planner(*overrides: str) -> ModePlanner:
    """One prompt, as it was measured, and nothing that waits for the host: the device is the bound from 4096 on."""
    prompt = f"modes.{MODE}.sequence_tokens={max(STOCK_MS)}"
    return ModePlanner(load_setup(DEPLOYMENT, (prompt, f"modes.{MODE}.launch=graph", *overrides)), MODE)


def _step_ms(planner: ModePlanner, what: str, tokens: int) -> float:
    if what in _OPS:
        return planner.step_us(_plan(planner, _OPS[what], tokens), tokens) / 1000
    plan = planner.library(tokens)
    wire = sum(
        n * planner.costs.estimate(term, tokens).total_us
        for edge, n in plan.counted
        for term in edge.terms
        if term.category == "wire"
    )
    return (planner.step_us(plan, tokens) - wire) / 1000


def _plan(planner: ModePlanner, op: Op, tokens: int) -> Plan:
    """The op at every sum of a layer."""
    only = tuple((boundary, op) for boundary in ("attn_out", "mlp_out"))
    return planner.best(tokens, Restriction(policy=False, only=only))


def table(found: list[Row], markdown: bool) -> str:
    """Gains side by side."""
    head = ["tokens", "what", "measured", "by the model alone", "with measured steps", "shown of what is saved"]
    lines = [head, *([["---"] * len(head)] if markdown else [])]
    for row in found:
        gains = (f"{gain:.1%}" for gain in (row.measured, row.alone, row.given))
        lines.append([str(row.tokens), row.what, *gains, f"{row.shown:.0%}"])
    if markdown:
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--markdown", action="store_true", help="a Markdown table, as docs/accuracy.md has it")
    print(table(list(rows()), parser.parse_args().markdown))


if __name__ == "__main__":
    main()
