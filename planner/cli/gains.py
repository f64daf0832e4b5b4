"""What a plan gains: over the server by itself, over the best of that server's flags, over the library's all-reduce.

In this order everywhere; and where a rival is faster than the plan, that is said before all else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..strategy.command_line.terminal import echo, styled

if TYPE_CHECKING:
    from ..search.stock import StockPrices
    from ..strategy.file import Predicted, StrategyFile
    from ..strategy.file.document import FasterFlag

COLUMNS = ("vs stock", "vs its best flag", "vs library")


def cells(predicted: Predicted) -> list[str]:
    """The three gains of a range."""
    from .output import times

    step, flag = predicted.step_us, predicted.best_stock_flag
    return [
        times(predicted.stock_us, step),
        "-" if flag is None else f"{times(flag[1], step)} {flag[0]}",
        times(predicted.library_us, step),
    ]


def gains_json(predicted: Predicted | None) -> dict[str, object]:
    """What a range's plan is held against; null where its file is older than that."""
    if predicted is None:
        return dict.fromkeys(("stock_us", "best_stock_flag", "library_us", "faster_flag"))
    flag, faster = predicted.best_stock_flag, predicted.faster_flag
    return {
        "stock_us": predicted.stock_us,
        "best_stock_flag": None if flag is None else {"name": flag[0], "step_us": flag[1]},
        "library_us": predicted.library_us,
        "faster_flag": None
        if faster is None
        else {"name": faster.name, "tokens": [faster.first, faster.last], "lead": faster.lead},
    }


def prices_json(prices: StockPrices) -> dict[str, object]:
    """The same at one token count."""
    flag = prices.best_flag
    return {
        "stock_us": prices.stock.step_us,
        "best_stock_flag": None if flag is None else {"name": flag.name, "step_us": flag.step_us},
        "library_us": prices.library.step_us,
    }


def sentence(prices: StockPrices, step_us: float) -> str:
    """The three gains of a step in words."""
    from .output import times

    flag = prices.best_flag
    over = "no flag of it applies" if flag is None else f"{times(flag.step_us, step_us)} over its flag {flag.name}"
    stock, library = (times(step.step_us, step_us) for step in (prices.stock, prices.library))
    return f"{stock} over the stock server, {over}, {library} over plain all-reduce by the library"


def yardsticks(executor: str, backend: str) -> str:
    """What the columns hold a plan against."""
    return f"stock is {server_of(executor)}, library is plain all-reduce by {backend} alone"


def server_of(executor: str) -> str:
    """What the stock server of an executor is called."""
    from ..executors import load_executor

    found = load_executor(executor)
    server = found if found.stands_for is None else load_executor(found.stands_for)
    assert server.stock is not None
    return server.stock.source


def print_faster_rivals(strategy: StrategyFile) -> None:
    """Say where a flag of the server, or the server by itself, is faster than the plan; nothing where none is."""
    lines = [*faster_flags(strategy), *_faster_stock(strategy)]
    for line in lines:
        echo(styled(line, "yellow", bold=True))
    if lines:
        echo()


def faster_flags(strategy: StrategyFile) -> Iterator[str]:
    """A line for each range in which a stock flag beats the plan."""
    for mode, flag in strategy.faster_flags:
        yield faster_flag(mode, flag)


def faster_flag(mode: str, flag: FasterFlag) -> str:
    """Where a stock flag beats the plan."""
    from .output import span

    where = f"{mode} of {span(flag.first, flag.last)} tokens"
    return f"A stock flag is faster than this plan: {flag.name}, in {where}, by up to {flag.lead:.1%}"


def _faster_stock(strategy: StrategyFile) -> Iterator[str]:
    from ..strategy.file.document import is_faster
    from .output import span

    for mode, ranges in strategy.modes.items():
        for plan in ranges:
            p = plan.predicted
            if p is not None and p.stock_us is not None and is_faster(p.stock_us, p.step_us):
                lead, where = 1 - p.stock_us / p.step_us, f"{mode} of {span(plan.first, plan.last)} tokens"
                yield f"The stock server is faster than this plan in {where}, by {lead:.1%} at {plan.last}"
