"""What a plan is held against: the server by itself, the best of that server's flags, the library's all-reduce."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..search.stock import StockPrices


def server_name(executor: str) -> str:
    """What the stock server of an executor is called."""
    from ..executors import load_executor, server_of

    stock = server_of(load_executor(executor)).stock
    assert stock is not None
    return stock.source


def yardsticks(executor: str, backend: str) -> str:
    """What the columns hold a plan against."""
    from ..executors import load_executor, server_of

    server = server_of(load_executor(executor)).name
    # Charged with the same waits, an executor and the server that it stands for differ by communication alone.
    host = "" if server == executor else f", on this executor's host (its own: executor={server})"
    return f"stock is {server_name(executor)}{host}; library is plain all-reduce by {backend} alone"


def prices_json(prices: StockPrices) -> dict[str, object]:
    """What a step at one token count is held against."""
    flag = prices.best_flag
    return {
        "stock_us": prices.stock.step_us,
        "best_stock_flag": None if flag is None else {"name": flag.name, "step_us": flag.step_us},
        "library_us": prices.library.step_us,
    }
