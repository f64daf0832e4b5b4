"""The points of a sweep as JSON, as records, and as rows of a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..what_if.crossovers import Crossover
    from ..what_if.marginal_answers import Answer
    from ..what_if.sweep import Point


def sweep_json(
    points: list[Point], found: list[tuple[dict[str, Any], Crossover]], answers: list[Answer], notes: list[str]
) -> dict[str, object]:
    """What a sweep found: its points, where the fastest strategy changes, answers, notes."""
    from dataclasses import asdict

    return {
        "points": [_point_json(point) for point in points],
        "crossovers": [{"set": others, **asdict(c)} for others, c in found],
        "answers": [asdict(answer) for answer in answers],
        "notes": notes,
    }


def _point_json(point: Point) -> dict[str, object]:
    from ..answers.gains import prices_json

    found = point.found
    return {
        "set": point.values,
        "mode": point.mode,
        "tokens": point.tokens,
        "legal": point.legal,
        "reason": point.reason or None,
        "kv_tokens_left": None if point.memory is None else point.memory.kv_tokens_left,
        **({} if found is None else prices_json(found.held_against)),
        "plans": [] if found is None else [_plan_json(point, name) for name in found.plans],
        "refused": {} if found is None else found.refused,
    }


def _plan_json(point: Point, name: str) -> dict[str, object]:
    assert point.found is not None
    parts = point.found.plans[name].parts
    return {
        "name": name,
        "step_us": parts.step_us,
        "communication_us": parts.communication_us,
        "communication_share": parts.communication_us / parts.step_us,
        "speed_up": point.found.speed_up(name),
        "wire_bytes": parts.wire_bytes,
        "activation_bytes": parts.activation_bytes,
        "kv_tokens_left": point.memory_of[name].kv_tokens_left,
        "numerics": parts.numerics,
        "provenance": parts.provenance_of("communication"),
        "extrapolated": parts.extrapolated,
    }


def records(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row for each point and plan, by the names of its columns; None where there is nothing to say."""
    names = list(points[0].values) if points else []
    return [row for point in points for row in _rows(point, [n for n in ("mode", "tokens") if n not in names])]


def _rows(point: Point, extra: list[str]) -> Iterator[dict[str, Any]]:
    given = {**point.values, **{name: getattr(point, name) for name in extra}}
    if point.found is None:
        yield {**given, "legal": False, "reason": point.reason, **dict.fromkeys(("plan", *_KNOWN))}
        return
    prices = point.found.held_against
    flag = prices.best_flag
    rivals = {
        "stock_us": prices.stock.step_us,
        "best_stock_flag": None if flag is None else flag.name,
        "best_stock_flag_us": None if flag is None else flag.step_us,
        "library_us": prices.library.step_us,
    }
    for name in point.found.plans:
        known = _plan_json(point, name) | rivals
        yield {**given, "legal": True, "reason": None, "plan": name, **{column: known[column] for column in _KNOWN}}


_KNOWN = (
    *("step_us", "communication_us", "communication_share", "speed_up"),
    *("wire_bytes", "activation_bytes", "kv_tokens_left", "numerics", "provenance"),
    *("stock_us", "best_stock_flag", "best_stock_flag_us", "library_us"),
)
"""What a row says of a plan."""


def write_csv(points: Sequence[Point], file: str) -> None:
    """Write a row for each point and plan."""
    import csv
    import io

    from ..strategy.errors import one_line
    from ..strategy.files import write_text_atomically

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    rows = records(points)
    writer.writerow(rows[0] if rows else ("mode", "tokens", "legal", "reason", "plan", *_KNOWN))
    for row in rows:
        writer.writerow(one_line(value) if isinstance(value, str) else value for value in row.values())
    write_text_atomically(file, stream.getvalue())
