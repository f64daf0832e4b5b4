"""The points of a sweep as JSON and as rows of a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from .gains import prices_json

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


def write_csv(points: list[Point], file: str) -> None:
    """Write a row for each point and plan."""
    import csv
    import io

    from ..strategy.errors import one_line
    from ..strategy.files import write_text_atomically

    names = list(points[0].values) if points else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    times = ("step_us", "communication_us", "communication_share", "speed_up")
    columns = (*times, "wire_bytes", "activation_bytes", "kv_tokens_left")
    extra = [n for n in ("mode", "tokens") if n not in names]
    against = ("stock_us", "best_stock_flag", "best_stock_flag_us", "library_us")
    writer.writerow([*names, *extra, "legal", "reason", "plan", *columns, "numerics", "provenance", *against])
    for point in points:
        given = [*point.values.values(), *(getattr(point, n) for n in extra)]
        given = [one_line(value) if isinstance(value, str) else value for value in given]
        if point.found is None:
            writer.writerow([*given, False, one_line(point.reason), "", *("" for _ in (*columns, *against)), "", ""])
            continue
        prices = point.found.held_against
        flag = prices.best_flag
        rivals = [prices.stock.step_us, *((flag.name, flag.step_us) if flag else ("", "")), prices.library.step_us]
        for name in point.found.plans:
            row = _plan_json(point, name)
            told = [*(row[c] for c in columns), row["numerics"], row["provenance"]]
            writer.writerow([*given, True, "", name, *told, *rivals])
    write_text_atomically(file, stream.getvalue())
