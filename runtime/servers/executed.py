"""Executed ops as a server tells them, and whether they are those of the plan. Values alone: no torch, no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commplan.planner.strategy.file import StrategyFile, places, problems

from ..bound.counts import impl_of

if TYPE_CHECKING:
    from .forward import Forwards

Key = tuple[str, int | None, str, str, str]  # mode, layer, boundary, op, impl


def of_rank(forwards: Forwards) -> dict[str, Any]:
    """What one rank has run since it started: forwards by range, calls by place, and collectives that no plan has."""
    return {
        "forwards": [
            {
                "mode": mode,
                "range": index,
                "tokens": [forwards.file.modes[mode][index].first, forwards.file.modes[mode][index].last],
                "forwards": counted.forwards,
                "rows": counted.tokens,
                "idle": counted.idle,
            }
            for (mode, index), counted in sorted(forwards.by_range.items())
        ],
        "ops": [
            {
                **dict(zip(("mode", "layer", "boundary", "op", "impl"), count.key, strict=True)),
                "calls": count.calls,
                "rows": count.rows,
                "wire_bytes": count.wire_bytes,
            }
            for count in forwards.counters.executed()
        ],
        "unplanned": dict(forwards.unplanned),
    }


def calls(rank: dict[str, Any]) -> dict[Key, int]:
    """Calls by place, as a rank has told them."""
    return {(op["mode"], op["layer"], op["boundary"], op["op"], op["impl"]): op["calls"] for op in rank["ops"]}


def planned_calls(file: StrategyFile, rank: dict[str, Any]) -> dict[Key, int]:
    """Calls that the plan has for the forwards that a rank has run: read off the file alone."""
    expected: dict[Key, int] = {}
    for told in rank["forwards"]:
        for layer, boundary, op in places(file.modes[told["mode"]][told["range"]]):
            if op.kind.runs:
                key = (told["mode"], layer, boundary, str(op), impl_of(op, file))
                # A DP group without rows embeds nothing, so none of its ranks has a sum there.
                idle = told["idle"] if boundary == "embed_out" else 0
                expected[key] = expected.get(key, 0) + told["forwards"] - idle
    return {key: count for key, count in expected.items() if count}


def misfit(file: StrategyFile, ranks: list[dict[str, Any]]) -> str:
    """Why what a server has told cannot be of this plan; empty if it can."""
    for problem in problems(file):
        return f"{problem.field}: {problem.reason}"
    if len(ranks) != file.parallelism.tp:
        return f"{len(ranks)} ranks where the plan has {file.parallelism.tp}"
    for told in (told for rank in ranks for told in rank["forwards"]):
        spans = [[plan.first, plan.last] for plan in file.modes.get(told["mode"], ())]
        if told["range"] >= len(spans) or spans[told["range"]] != told["tokens"]:
            return f"it has no range {told['range']} of {told['mode']} with tokens {told['tokens']}"
    return ""


def differences(file: StrategyFile, rank: dict[str, Any]) -> list[str]:
    """Where a rank has run something else than the plan; empty if nothing."""
    ran, planned = calls(rank), planned_calls(file, rank)
    found = [
        f"{key[0]} {key[2] if key[1] is None else f'layer {key[1]} {key[2]}'}: {key[3]} by {key[4]} ran "
        f"{ran.get(key, 0)} times, planned {planned.get(key, 0)}"
        for key in sorted({*ran, *planned}, key=str)
        if ran.get(key, 0) != planned.get(key, 0)
    ]
    found += [f"{mode}: {count} collectives that the plan does not have" for mode, count in rank["unplanned"].items()]
    return found


def change(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What a rank has run between two reports of it."""
    old_forwards = {(told["mode"], told["range"]): told for told in before["forwards"]}
    old_calls = calls(before)
    forwards = [
        told
        | {
            name: told[name] - old_forwards.get((told["mode"], told["range"]), {}).get(name, 0)
            for name in ("forwards", "rows", "idle")
        }
        for told in after["forwards"]
    ]
    ops = [
        op | {"calls": op["calls"] - old_calls.get(key, 0)} for key, op in zip(calls(after), after["ops"], strict=True)
    ]
    unplanned = {mode: count - before["unplanned"].get(mode, 0) for mode, count in after["unplanned"].items()}
    return {
        "forwards": [told for told in forwards if told["forwards"]],
        "ops": [op for op in ops if op["calls"]],
        "unplanned": {mode: count for mode, count in unplanned.items() if count},
    }


def in_force(file: StrategyFile, name: str, plan_hash: str) -> str:
    """One line for the log: plan, hash, ranges, and the ops of each."""
    parts = []
    for mode, ranges in file.modes.items():
        for plan in ranges:
            kinds = sorted({f"{boundary} {op}" for _, boundary, op in places(plan) if not op.kind.is_none})
            parts.append(f"{mode} {plan.first}-{plan.last}: {', '.join(kinds)}")
    return f"commplan: {name} ({plan_hash}) is in force; " + "; ".join(parts)
