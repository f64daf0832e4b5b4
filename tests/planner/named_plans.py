"""Plans named by their ops, whatever the policy says of them, and what their parts cost."""

from __future__ import annotations

from collections import Counter

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.graph import Plan, Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.ops import parse


def planner_of(deployment: str, mode: str, *overrides: str) -> ModePlanner:
    return ModePlanner(load_setup(deployment, overrides), mode)


BY_LIBRARIES = Restriction(own_kernels=False)
"""What publications compared: no kernel of commplan's own, and where the executor is no server none of a server's."""


def named(
    planner: ModePlanner,
    tokens: int,
    strategies: tuple[str, ...] | None = None,
    own_kernels: bool = True,
    **ops: object,
) -> Plan:
    """The cheapest plan that has these ops (as a strategy file spells them) wherever they are legal."""
    only = tuple((boundary, parse(op, boundary)) for boundary, op in ops.items())
    return planner.best(tokens, Restriction(strategies, policy=False, only=only, own_kernels=own_kernels))


def parts_us(planner: ModePlanner, plan: Plan, tokens: int, boundaries: tuple[str, ...] = ()) -> Counter[str]:
    """Time by category (wire, norm, latent_gemm, ...) over the whole forward, or at some boundaries alone."""
    found: Counter[str] = Counter()
    for edge, count in plan.counted:
        if not boundaries or edge.boundary in boundaries:
            for term in edge.terms:
                found[term.category] += count * planner.costs.estimate(term, tokens).total_us  # type: ignore[assignment]
    return found


def ops_at(plan: Plan, boundary: str) -> Counter[str]:
    """How often each op stands at a boundary."""
    return Counter(str(edge.op) for edge in plan.edges if edge.boundary == boundary)
