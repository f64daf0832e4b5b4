"""What a deployment demands of how sums are made, beyond their class: in which order, in which type, and by nothing
that was reported to be wrong.

A sum over two ranks is one addition, whose result no order and no type of a running total changes.
"""

from __future__ import annotations

from ..descriptions.known_bad import known_bad_reason
from ..descriptions.setup import Setup
from ..strategy.ops import Op


def sum_refusal(op: Op, ranks: int, mode: str, setup: Setup) -> str | None:
    """Why numerics, or what is known of an impl, do not let it perform an op over so many ranks; None if they do."""
    if not op.kind.is_collective:
        return None
    name = op.impl or setup.hardware.backend
    impl, numerics = setup.executor.impls.get(name), setup.deployment.numerics
    if impl is None:
        return None
    if (why := known_bad_reason(name, mode, setup.executor, setup.parallelism)) is not None:
        return why
    exact_pair = ranks <= 2 and not op.kind.is_quantized
    if not op.kind.sums or exact_pair:
        return None
    if numerics.batch_invariant and not impl.adds_in_order(op):
        how = f"{op.name} ({op.algorithm})" if op.algorithm else op.name
        return f"{name} does not say that {how} adds in one order at every token count (numerics.batch_invariant)"
    if numerics.accumulation == "fp32" and impl.accumulates != "fp32" and not op.kind.is_quantized:
        kept = {"activations": "adds in the type of the activations", None: "does not say what it adds in"}
        return f"{name} {kept[impl.accumulates]}, and numerics.accumulation is fp32"
    return None
