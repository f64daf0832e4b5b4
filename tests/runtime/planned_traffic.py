"""The collectives that a plan asks for, in order, read off its ops alone; and a spy that sees those that really run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from commplan.planner.strategy.ops import Op

from ..quantised_ops import QUANTISED
from .legal_plans import GROUP, SHARD, Plan, World

COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "all_to_all_uneven")


class Call(NamedTuple):
    """One collective of a backend over a group of so many ranks."""

    name: str
    group_size: int


def planned_calls(world: World, plan: Plan, *, idle: bool = False) -> list[Call]:
    """Collectives of one forward, LM head included. `idle`: of a rank whose DP group has no rows."""
    sizes = {"tp": world.tp, "attn_tp": world.attn_tp, "attn_dp": world.attn_dp, None: world.tp}
    calls: list[Call] = []
    for (layer, boundary), edge in zip(world.places, plan, strict=True):
        if boundary == "mlp_out" and layer in world.sharded_mlps:
            calls += [Call("all_to_all", world.tp)] + 3 * [Call("all_to_all_uneven", world.tp)]
        if boundary == "attn_out" and world.spanning_norms and world.attn_tp > 1 and not idle:
            calls.append(Call("all_reduce", world.attn_tp))
        calls += [Call(name, size) for name, size in _of_op(edge.op, sizes, world) if size > 1]
        if edge.op.residual == "gather":
            assert edge.before is not None
            wide = edge.after.residual == GROUP
            calls.append(Call("all_gather", sizes["attn_tp" if wide else "attn_dp"]))
            if edge.before.residual == SHARD and not wide:
                calls[-1] = Call("all_gather", world.tp)
    return [*calls, Call("all_gather", world.tp)]


def _of_op(op: Op, sizes: dict[str | None, int], world: World) -> list[tuple[str, int]]:
    size = sizes[op.group]
    match op.name, op.algorithm:
        case (("none" | "slice" | "fused"), _):
            return []
        case name, "gather" if name in QUANTISED:
            return 2 * [("all_gather", size)]
        case name, _ if name in QUANTISED:
            return 2 * [("all_to_all", size)] + 2 * [("all_gather", size)]
        case "reduce_scatter_all_gather", _:
            return [("reduce_scatter", size), ("all_gather", world.attn_tp)]
        case "all_reduce_all_gather", _:
            return [("all_reduce", world.attn_tp), ("all_gather", world.attn_dp)]
        case "reduce_scatter_all_reduce", _:
            return [("reduce_scatter", world.attn_dp), ("all_reduce", world.attn_tp)]
        case "latent_all_gather", _:
            return [("all_gather", size)]
    return [(op.name, size)]


@contextmanager
def seen_calls(backend: Any) -> Iterator[list[Call]]:
    """Every collective that a backend performs inside."""
    seen: list[Call] = []

    def spied(name: str) -> Any:
        method = getattr(backend, name)

        def call(*args: Any) -> Any:
            seen.append(Call(name, args[-1].size))
            return method(*args)

        return call

    for name in COLLECTIVES:
        setattr(backend, name, spied(name))
    try:
        yield seen
    finally:
        for name in COLLECTIVES:
            delattr(backend, name)
