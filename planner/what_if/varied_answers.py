"""What a sweep found about each setting that was varied: about those, and about nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..search.graph import Plan
from ..strategy.errors import NoLegalPlanError, one_line
from .evaluation import PLAN, Evaluation
from .fields import FORWARD_FIELDS, Axis
from .marginal_answers import Answer, Asker
from .sweep import Point, Sweep

_SPOKEN = {"tokens": "the token count", "mode": "the forward mode"}
_FORMATS = "numerics.wire_formats"
_MOST_GROUPS = 3  # of the other settings, that are told apart in words; figures hold all of them
_MOST_VALUES = 6  # that are listed
_GOT = re.compile(r" \(got [^()]*\)\Z")  # the value of a point, which is told apart
_SAME = 0.0005  # of a step or gain: less is told as no change


def varied_answers(sweep: Sweep, points: Sequence[Point]) -> list[Answer]:
    """An answer for each varied setting, and what can be said of that setting without a sweep."""
    found = [_answer(axis, _groups(axis, points)) for axis in sweep.axes]
    asker = Asker(sweep.deployment, sweep.overrides, sweep.base, sweep.mode, sweep.tokens)
    for axis in sweep.axes:
        asked = None
        try:
            if axis.field == "parallelism.tp":
                asked = asker.devices()
            elif axis.field.startswith("numerics.") and not any(asker.quantised_question == a.question for a in found):
                asked = asker.quantised()
        except NoLegalPlanError:  # the deployment itself has no plan: the sweep has said where there is one
            continue
        found += [asked] if asked is not None else []
        if axis.field == _FORMATS and (formats := asker.formats()) is not None:
            found.append(formats)
    return found


@dataclass(frozen=True)
class _Group:
    """The points along an axis at one combination of the other settings."""

    name: str
    others: dict[str, Any]
    points: list[Point]

    @property
    def legal(self) -> list[tuple[str, Evaluation]]:
        """The values with a plan, and what was found there."""
        return [(_spelled(p.values[self.name]), p.found) for p in self.points if p.found is not None]


def _groups(axis: Axis, points: Sequence[Point]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for point in points:
        others = {name: value for name, value in point.values.items() if name != axis.name}
        groups.setdefault(repr(others), _Group(axis.name, others, [])).points.append(point)
    return list(groups.values())


def _answer(axis: Axis, groups: list[_Group]) -> Answer:
    question = f"What does {_SPOKEN.get(axis.name, axis.name)} change?"
    told = groups if len(groups) <= _MOST_GROUPS else [groups[0], groups[-1]]
    texts = [_where(group.others) + "; ".join(_clauses(axis, group)) for group in told]
    if len(told) < len(groups):
        texts.append(f"the other {len(groups) - len(told)} combinations are in the table")
    return Answer(question, ". ".join(text[0].upper() + text[1:] for text in texts), _figures(groups))


def _where(others: dict[str, Any]) -> str:
    return f"at {', '.join(f'{name} {_spelled(value)}' for name, value in others.items())}: " if others else ""


def _figures(groups: list[_Group]) -> list[dict[str, object]]:
    figures: list[dict[str, object]] = []
    for group in groups:
        before: Evaluation | None = None
        for point in group.points:
            figure: dict[str, object] = {"set": point.values, "legal": point.legal, "reason": point.reason}
            if (found := point.found) is not None:
                parts = found.plans[PLAN].parts
                figure |= {
                    "step_us": parts.step_us,
                    "communication_us": parts.communication_us,
                    "over_stock": found.over_stock,
                    "kv_tokens_left": point.memory_of[PLAN].kv_tokens_left,
                    "decisions_change": before is not None and _ops(before) != _ops(found),
                }
                before = found
            figures.append(figure)
    return figures


# ---- words -----------------------------------------------------------------------------------------------------------


def _clauses(axis: Axis, group: _Group) -> Iterator[str]:
    """What is to be said along an axis."""
    legal = group.legal
    if not legal:
        yield "no value is legal"
    elif len(legal) == 1:
        value, found = legal[0]
        alone = f"at {value}" if len(group.points) == 1 else f"only {value} is legal:"
        yield f"{alone} the plan's step is {_time(_step(found))}, {found.over_stock:.3f}x over the stock server"
    else:
        yield from _steps(axis, legal)
        yield _extremes("its gain over the stock server", [(v, f.over_stock) for v, f in legal], 3, "x")
        yield _decisions(axis, legal)
        yield from _memory(group)
    yield from _illegal(group)


def _steps(axis: Axis, legal: list[tuple[str, Evaluation]]) -> Iterator[str]:
    steps = [(value, _step(found)) for value, found in legal]
    (first, one), (last, other) = steps[0], steps[-1]
    values = [us for _, us in steps]
    if max(values) - min(values) <= _SAME * min(values):
        yield f"the plan's step stays the same, {_time(one)}"
    elif values in (sorted(values), sorted(values, reverse=True)):
        times = f"{other / one:.3g} times as long"
        yield f"the plan's step goes from {_time(one)} at {first} to {_time(other)} at {last}, {times}"
    else:
        low, high = min(steps, key=lambda each: each[1]), max(steps, key=lambda each: each[1])
        yield f"the plan's step is shortest at {low[0]} ({_time(low[1])}), longest at {high[0]} ({_time(high[1])})"
    if axis.field == "tokens":
        best, us = min(((found.tokens, _step(found) / found.tokens) for _, found in legal), key=lambda each: each[1])
        yield f"a token is cheapest at {best} ({us:,.1f} us)"
    elif axis.field == "parallelism.tp":
        yield f"most tokens per device at {min(legal, key=lambda each: int(each[0]) * _step(each[1]))[0]}"


def _extremes(what: str, values: list[tuple[str, float]], digits: int, unit: str = "") -> str:
    low, high = min(values, key=lambda each: each[1]), max(values, key=lambda each: each[1])
    least, most = (f"{each[1]:,.{digits}f}{unit}" for each in (low, high))
    if high[1] - low[1] <= _SAME * abs(high[1]):
        return f"{what} stays the same, {most}"
    return f"{what} is largest at {high[0]} ({most}), smallest at {low[0]} ({least})"


def _decisions(axis: Axis, legal: list[tuple[str, Evaluation]]) -> str:
    changed = [value for (_, before), (value, after) in pairwise(legal) if _ops(before) != _ops(after)]
    if not changed:
        return "the same ops are chosen at every value"
    rises = all(isinstance(value, int | float) for value in axis.values) and list(axis.values) == sorted(axis.values)
    return f"other ops are chosen {f'from {_listed(changed)} on' if rises else f'at {_listed(changed)}'}"


def _memory(group: _Group) -> Iterator[str]:
    left = [(_spelled(p.values[group.name]), float(p.memory_of[PLAN].kv_tokens_left)) for p in group.points if p.legal]
    if len({tokens for _, tokens in left}) > 1 and group.name not in FORWARD_FIELDS:
        yield _extremes("room for tokens of KV cache", left, 0)


def _illegal(group: _Group) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for point in group.points:
        if not point.legal:
            by_reason.setdefault(_GOT.sub("", point.reason), []).append(_spelled(point.values[group.name]))
    for reason, values in by_reason.items():
        yield f"illegal at {_listed(values)}: {reason}"


def _listed(values: list[str]) -> str:
    more = f" and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else ""
    return ", ".join(values[:_MOST_VALUES]) + more


def _spelled(value: Any) -> str:
    text = one_line(str(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _step(found: Evaluation) -> float:
    return found.plans[PLAN].parts.step_us


def _time(us: float) -> str:
    return f"{us:,.1f} us" if us < 1000 else f"{us / 1000:,.2f} ms"


def _ops(found: Evaluation) -> tuple[str, ...]:
    plan: Plan = found.plans[PLAN].plan
    return tuple(str(edge.op) for edge in plan.edges)
