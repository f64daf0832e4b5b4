"""How far a plan can be trusted, as `commplan plan` says it: one line under each range, one object in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..strategy.command_line.terminal import echo

if TYPE_CHECKING:
    from ..answers.to_file import Chosen
    from ..backtest.trust import Trust
    from ..search.planning import ModePlanner
    from ..search.ranges import PlannedRange
    from ..search.stock import StockPlanner

Trusts = dict[str, "list[Trust]"]
"""By mode, in the order of its ranges."""
_MOST_FIELDS = 3  # that a line names


def trusts_of(found: Chosen, fits: bool | None = None) -> Trusts:
    """The trust of every range, at its last token count. `fits`: whether the devices have the memory, where known."""
    return {
        mode: [_trust(planner, stock, chosen, fits) for chosen in ranges]
        for mode, (planner, ranges, stock) in found.items()
    }


def _trust(planner: ModePlanner, stock: StockPlanner, chosen: PlannedRange, fits: bool | None) -> Trust:
    """Over the stock server; a flag's hidden overlap has no part in it."""
    from ..backtest.trust import shares_of, trust_of

    tokens = chosen.last
    step = stock.default(tokens)
    against = shares_of(stock.server, step.plan, tokens, step.step_us)
    return trust_of(planner, chosen.plan, tokens, over="the stock server", against=against, fits=fits)


def print_trusts(found: Chosen, trusts: Trusts) -> None:
    """A line for each range."""
    from .output import heading, print_wrapped, span

    echo()
    heading("Trust")
    for mode, (_, ranges, _) in found.items():
        for chosen, trust in zip(ranges, trusts[mode], strict=True):
            print_wrapped(f"  {mode} {span(chosen.first, chosen.last)}: {trust_line(trust)}", "    ")


def trust_line(trust: Trust) -> str:
    """Gain, nearest back-test, assumptions; the memory has a line of its own."""
    gain, nearest = trust.gain, trust.nearest
    near = f" ({trust.nearness})" if trust.nearness else ""
    low, high = (f"{end:.3f}" for end in (gain.low, gain.high))
    parts = [
        f"gain over {gain.over} {gain.value:.3f}x" + ("" if low == high else f", {low} to {high}"),
        f"nearest back-test {nearest.id} {nearest.error:+.1%}{near}",
    ]
    more = len(trust.assumed) - _MOST_FIELDS
    named = ", ".join(trust.assumed[:_MOST_FIELDS]) or "nothing"
    parts.append(f"assumed: {named}" + (f" and {more} more" if more > 0 else ""))
    return "; ".join(parts)


def trust_json(trust: Trust) -> dict[str, object]:
    """The object under the key `trust` of a range."""
    gain, nearest = trust.gain, trust.nearest
    return {
        "gain": {"over": gain.over, "value": gain.value, "low": gain.low, "high": gain.high},
        "nearest": {
            "id": nearest.id,
            "quantity": nearest.quantity,
            "unit": nearest.unit,
            "error": nearest.error,
            "verdict": nearest.verdict,
            "machine": nearest.machine,
            "ranks": nearest.ranks,
            "ops": list(nearest.ops),
            "message_bytes": nearest.message_bytes,
            "differs": trust.nearness,
        },
        "fits": trust.fits,
        "assumed": list(trust.assumed),
    }
