"""What a plan gains: over the server by itself, over the best of that server's flags, over the library's all-reduce.

In this order everywhere; and where a rival is faster than the plan, that is said before all else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..answers.gains import prices_json, server_name, yardsticks
from ..strategy.command_line.terminal import echo, styled

if TYPE_CHECKING:
    from ..search.stock import StockPrices
    from ..strategy.file import Predicted, StrategyFile

__all__ = [
    "COLUMNS",
    "cells",
    "faster_here",
    "gains_json",
    "price_cells",
    "prices_json",
    "print_faster_rivals",
    "print_gains",
    "ranges_json",
    "sentence",
    "server_name",
    "yardsticks",
]

COLUMNS = ("vs stock", "vs its best flag", "vs library")
NO_FLAG_HELPS = "none helps"


def cells(predicted: Predicted) -> list[str]:
    """The three gains of a range; over a flag only where that helps the server."""
    from .output import times

    step, flag = predicted.step_us, predicted.best_stock_flag
    over = "-" if flag is None else f"{times(flag[1], step)} {flag[0]}" if predicted.flag_helps else NO_FLAG_HELPS
    return [
        times(predicted.stock_us, step),
        over,
        times(predicted.library_us, step),
    ]


def price_cells(prices: StockPrices, step_us: float) -> list[str]:
    """The three gains of a step, without the flag's name."""
    from .output import times

    rivals = (prices.stock, prices.helping_flag, prices.library)
    return [times(None if rival is None else rival.step_us, step_us) for rival in rivals]


def gains_json(predicted: Predicted | None) -> dict[str, object]:
    """What a range's plan is held against; null where its file is older than that."""
    if predicted is None:
        return dict.fromkeys(("stock_us", "stock_source", "best_stock_flag", "library_us", "faster_rivals"))
    flag = predicted.best_stock_flag
    return {
        "stock_us": predicted.stock_us,
        "stock_source": predicted.stock_source,
        "best_stock_flag": None if flag is None else {"name": flag[0], "step_us": flag[1]},
        "library_us": predicted.library_us,
        "faster_rivals": [
            {"flag": rival.flag, "tokens": [rival.first, rival.last], "lead": rival.lead}
            for rival in predicted.faster_rivals
        ],
    }


def sentence(prices: StockPrices, step_us: float, backend: str) -> str:
    """The three gains of a step in words."""
    from .output import times

    flag = prices.helping_flag
    over = f"no flag of it {'applies' if prices.best_flag is None else 'helps'}"
    if flag is not None:
        over = f"{times(flag.step_us, step_us)} over {flag.name}"
    stock, library = (times(step.step_us, step_us) for step in (prices.stock, prices.library))
    return f"{stock} over the stock server, {over}, {library} over plain all-reduce by {backend}"


def faster_here(prices: StockPrices, step_us: float, mode: str, tokens: int) -> Iterator[str]:
    """What of the server is faster than a step of one token count, its flag first."""
    from ..strategy.file.document import FasterRival, is_faster, rival_line

    for step in (prices.best_flag, prices.stock):
        if step is not None and is_faster(step.step_us, step_us):
            yield rival_line(mode, FasterRival(step.name or None, tokens, tokens, 1 - step.step_us / step_us))


def ranges_json(strategy: StrategyFile) -> dict[str, list[dict[str, object]]]:
    """The gains of every range of a file."""
    return {
        mode: [
            {"tokens": [r.first, r.last], "step_us": r.predicted and r.predicted.step_us, **gains_json(r.predicted)}
            for r in ranges
        ]
        for mode, ranges in strategy.modes.items()
    }


def print_gains(strategy: StrategyFile, name: str) -> None:
    """The gains of every range of a file; nothing for a file that is older than they are."""
    from .output import duration, heading, span, table

    rows = [
        [mode, span(r.first, r.last), duration(p.step_us), *cells(p)]
        for mode, ranges in strategy.modes.items()
        for r in ranges
        if (p := r.predicted) is not None and p.stock_us is not None
    ]
    if rows:
        echo()
        heading(f"Gains of {name}: {yardsticks(strategy.executor, strategy.hardware.backend)}")
        table(["mode", "tokens", "step", *COLUMNS], rows, "lrrrlr")


def print_faster_rivals(strategy: StrategyFile, name: str = "") -> None:
    """Say where a flag of the server, or the server by itself, is faster than the plan; nothing where none is."""
    from ..strategy.file import rival_line

    lines = [rival_line(mode, rival) for mode, rival in strategy.faster_rivals]
    for line in lines:
        echo(styled(f"{name}: {line}" if name else line, "yellow", bold=True))
    if lines:
        echo()
