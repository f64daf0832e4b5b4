"""How far a plan can be trusted, as `commplan plan` says it: one line under each range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..strategy.command_line.terminal import echo

if TYPE_CHECKING:
    from commplan import Plan

    from ..backtest.trust import Trust

_MOST_FIELDS = 3  # that a line names


def print_trusts(plan: Plan) -> None:
    """A line for each range."""
    from .output import heading, print_wrapped, span

    echo()
    heading("Trust")
    for each in plan.ranges():
        print_wrapped(f"  {each.mode} {span(each.first, each.last)}: {trust_line(each.trust)}", "    ")


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
