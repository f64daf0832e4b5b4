"""The sections that every report has, and the facts and the finding at its top."""

from __future__ import annotations

from ..strategy.file import rival_line
from ..what_if.evaluation import PLAN
from .bars import cost_chart
from .chart import Chart
from .curves import speed_up_chart
from .decisions import decision_chart
from .frontier import frontier_chart
from .study import Study


def sections(study: Study, tokens: dict[str, int] | None = None) -> list[tuple[str, list[Chart]]]:
    """All charts. `tokens` by mode: where costs are broken down (default: the largest planned count)."""
    counts = {mode: (tokens or {}).get(mode, study.ranges[mode][-1].last) for mode in study.modes}
    return [
        ("Which strategy wins where", [speed_up_chart(study, mode) for mode in study.modes]),
        ("Why", [cost_chart(study, mode, counts[mode]) for mode in study.modes]),
        ("What the plan decides", [decision_chart(study)]),
        ("What an error would buy", [frontier_chart(study, mode, counts[mode]) for mode in study.modes]),
    ]


def headline(study: Study) -> str:
    """What the whole report finds, in one sentence: over the stock server, then over its best flag, then plain."""
    name = f"{study.setup.model.name} on {study.setup.hardware.name}"
    if study.faster_rivals:
        mode, rival = study.faster_rivals[0]
        return f"{name}: {rival_line(mode, rival)}"
    ends = [(mode, r.last, study.at(mode, r.last)) for mode in study.modes for r in study.ranges[mode]]
    mode, count, found = max(ends, key=lambda end: end[2].over_stock)
    gain, prices = found.over_stock, found.held_against
    if gain < 1.005:
        return f"{name}: the stock server is right by itself everywhere"
    step_us = found.plans[PLAN].parts.step_us
    flag = prices.helping_flag
    over = "" if flag is None else f", {flag.step_us / step_us:.2f}x over {flag.name}"
    return (
        f"{name}: the plan takes {1 - 1 / gain:.0%} off a {mode} step of {count:,} tokens, {gain:.2f}x over the stock "
        f"server{over}, {prices.library.step_us / step_us:.2f}x over plain all-reduce"
    )


def subtitle(study: Study) -> str:
    """The deployment in a line."""
    p, d = study.setup.parallelism, study.setup.deployment
    stages = f" x PP {p.pp}" if p.pp > 1 else ""
    attention = f" (attention DP {p.attn_dp} x TP {p.attn_tp})" if p.attn_dp > 1 else ""
    split = f"TP {p.tp}{stages}{attention}"
    return f"{d.name}: {split}, executor {study.setup.executor.name}, numerics up to {d.numerics.loosest}"


def facts(study: Study) -> list[tuple[str, str]]:
    """What the figures rest on."""
    setup = study.setup
    tables = [
        f"{used.calibration.name} ({'transferred' if used.transferred_because else used.calibration.provenance})"
        for used in setup.calibrations
    ]
    d = setup.deployment.dtypes
    weakest = {
        found.plans[PLAN].parts.provenance_of("communication")
        for mode in study.modes
        for _, found in study.evaluations(mode)[-1:]
    }
    return [
        ("Measured tables", ", ".join(tables) or "none: formulas"),
        ("Held against", study.evaluator.server(study.modes[0]).rules.source),
        ("Wire times from", ", ".join(sorted(weakest))),
        ("Weights / activations / KV cache", f"{d.weights} / {d.activations} / {d.kv_cache}"),
        ("Token ranges", ", ".join(f"{mode} {len(ranges)}" for mode, ranges in study.ranges.items())),
    ]
