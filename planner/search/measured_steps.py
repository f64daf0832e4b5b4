"""What a measured step says of the model: how much longer than modelled takes what is not communication.

A model prices rooflines; a real step has kernels that miss them, gaps, and work that no model lists (published steps
take 1.6 to 2.9 times as long as modelled). What a plan saves on communication is a smaller part of the longer step.
Passes over memory are no part of what is scaled: a norm that a plan saves saves what it takes by itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..cost.terms import COMMUNICATION, SCALED
from ..strategy.errors import InputError

if TYPE_CHECKING:
    from .planning import ModePlanner


def compute_factors(planner: ModePlanner, measured: dict[int, float]) -> dict[int, float]:
    """The factor at each measured token count; the planner must price as modelled while it is asked.

    Raises InputError for a step that is shorter than its communication.
    """
    found = {}
    for tokens, step_us in sorted(measured.items()):
        communication = passes = rest = 0.0
        for edge, count in planner.plain(tokens).counted:
            for term in edge.terms:
                time = count * planner.costs.estimate(term, tokens).total_us
                if isinstance(term.work, COMMUNICATION):
                    communication += time
                elif isinstance(term.work, SCALED):
                    rest += time
                else:
                    passes += time
        for estimate in planner.fixed(tokens):
            if estimate.wire_bytes:
                communication += estimate.total_us
            else:
                rest += estimate.total_us
        if step_us <= communication + passes:
            raise InputError(
                f"shorter than the communication and the norms of plain all-reduce at {tokens} tokens, "
                f"{communication + passes:.1f} us by the tables and formulas of this machine; a step of the whole "
                "forward is expected",
                file=planner.setup.file,
                field=f"modes.{planner.mode}.measured_step_us",
                value=step_us,
            )
        found[tokens] = (step_us - communication - passes) / rest
    return found


def between(factors: dict[int, float], tokens: int) -> float:
    """The factor at a token count: log-log between those measured, that of the nearest beyond them."""
    known = sorted(factors)
    if tokens <= known[0]:
        return factors[known[0]]
    if tokens >= known[-1]:
        return factors[known[-1]]
    above = next(i for i, count in enumerate(known) if count >= tokens)
    low, high = known[above - 1], known[above]
    share = math.log(tokens / low) / math.log(high / low)
    return math.exp((1 - share) * math.log(factors[low]) + share * math.log(factors[high]))
