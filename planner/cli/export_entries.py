"""Limits for a server's source, for people and for programs: the same for every server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..strategy.command_line.terminal import echo, styled

if TYPE_CHECKING:
    from ..export.thresholds import Point, Verdict


def print_verdict(
    where: str,
    verdict: Verdict,
    points: Sequence[Point],
    sources: Sequence[str],
    line: str | None,
    note: str | None,
    impl: str,
) -> None:
    """What is said of one limit; with its measurements where it should be another one."""
    from ..export.thresholds import size
    from .output import print_wrapped, table

    echo(f"  {where}")
    stands = "no entry" if verdict.stands is None else size(verdict.stands)
    if not verdict.changes:
        echo(f"    {stands} stands: {verdict.reason}")
    else:
        new = size(verdict.limit) if verdict.limit else "never"
        echo(f"    {stands} should be {new}: {verdict.reason}")
    if line is not None:
        echo("    ", styled(line, "green", bold=True))
    if note is not None:
        echo(f"    {note}")
    if verdict.holes:
        echo(f"    Behind at {', '.join(map(size, verdict.holes))} too, which one limit cannot leave out")
    if line is not None:
        for source in sources:
            print_wrapped(f"    Measured: {source}", "      ")
        rows = [[size(p.message_bytes), f"{p.us:.1f}", f"{p.rival_us:.1f}", p.rival] for p in points]
        table(["  message", f"{impl}, us", "else, us", "by"], rows, "rrrl")


def print_missing(missing: Sequence[str]) -> None:
    """What could not be judged."""
    if missing:
        echo("  Not judged:")
        for text in missing:
            echo(f"    {text}")


def verdict_json(verdict: Verdict | None, points: Sequence[Point], sources: Sequence[str]) -> dict[str, Any]:
    """The keys of one limit."""
    if verdict is None:
        return {"limit_bytes": None, "stands_bytes": None, "reason": None, "holes": [], "points": [], "sources": []}
    return {
        "limit_bytes": verdict.limit,
        "stands_bytes": verdict.stands,
        "reason": verdict.reason,
        "holes": list(verdict.holes),
        "points": [
            {"message_bytes": p.message_bytes, "us": p.us, "rival_us": p.rival_us, "rival": p.rival} for p in points
        ],
        "sources": list(sources),
    }


def layers_of(layers: Sequence[int]) -> str:
    """` of layers 0-2, 5`; empty outside the layers."""
    runs: list[list[int]] = []
    for number in layers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    spelled = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f" of layers {spelled}" if layers else ""
