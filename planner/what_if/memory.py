"""Memory at the points of a sweep, and the fewest devices that hold a deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..descriptions.setup import Setup
from ..fit.peaks import with_logits
from ..fit.verdict import Fit, fit
from ..fit.words import reason
from ..strategies import PLAIN
from ..strategy.errors import CommplanError
from .evaluation import PLAN, Evaluation, Evaluator

_MOST_DEVICES = 4096


def fit_at(setup: Setup, mode: str, tokens: int, found: Evaluation, name: str = PLAN) -> Fit:
    """One forward under one of the named plans against the memory of a device."""
    of_plan, of_plain = (found.plans[each].parts.activation_bytes for each in (name, PLAIN))
    return fit(setup, [(mode, tokens)], with_logits(setup, [(mode, tokens, of_plan, of_plain)]))


def tp_sizes(setup: Setup) -> Iterator[int]:
    """Sizes of tp that the machine has devices for: powers of two, from the number of DP groups on."""
    size = max(1, setup.parallelism.attn_dp)
    while size * setup.parallelism.pp <= setup.hardware.num_devices:
        yield size
        size *= 2


def with_tp(setup: Setup, tp: int) -> tuple[str, ...]:
    """The overrides that give a deployment another tp; where experts are spread over all ranks they stay so."""
    experts = (f"parallelism.ep={tp}",) if setup.parallelism.ep == setup.parallelism.tp else ()
    return (f"parallelism.tp={tp}", *experts)


@dataclass(frozen=True)
class Fewest:
    """The fewest devices that hold a deployment.

    devices   on which the smallest forward of every mode has room; None where the machine has too few
    memory    of a rank there
    whole     devices on which every mode's largest forward has; None where the machine has too few
    lacking   what each smaller size lacks
    at_least  devices that spread the weights thinly enough, where the machine has too few
    """

    devices: int | None
    memory: Fit | None
    whole: int | None
    lacking: dict[int, str]
    at_least: int | None


def fewest_devices(base: Setup, load: Callable[..., Setup]) -> Fewest:
    """Tries every size of the machine from the smallest on, with the largest forward of every mode."""
    lacking: dict[int, str] = {}
    first: tuple[int, Fit] | None = None
    for tp in tp_sizes(base):
        devices = tp * base.parallelism.pp
        try:
            found = _whole(load(*with_tp(base, tp)))
        except CommplanError as error:
            if first is None:
                lacking[devices] = error.message
            continue
        if found.fits:
            return Fewest(*(first or (devices, found)), devices, lacking, None)
        if first is None and holds(found):
            first = (devices, found)
        elif first is None:
            lacking[devices] = reason(found)
    if first is None:
        return Fewest(None, None, None, lacking, _at_least(base))
    return Fewest(*first, None, lacking, None)


def holds(found: Fit) -> bool:
    """True where the smallest forward of each mode has room, though the largest may have none."""
    return found.fits or (found.misses == "kv_cache" and all(found.most_tokens.values()))


def _whole(setup: Setup) -> Fit:
    """Every mode at its largest forward; activations are looked at only where weights fit."""
    bare = fit(setup)
    if bare.misses == "weights":
        return bare
    forwards = []
    for mode, spec in setup.deployment.modes.items():
        plans = Evaluator(setup).at(mode, spec.tokens[1]).plans
        of_plan, of_plain = plans[PLAN].parts.activation_bytes, plans[PLAIN].parts.activation_bytes
        forwards.append((mode, spec.tokens[1], of_plan, of_plain))
    return fit(setup, peak=with_logits(setup, forwards))


def _at_least(base: Setup) -> int | None:
    """Devices from which on weights fit, by their sharding alone; None where more ranks would never do."""
    deployment, p = base.deployment, base.deployment.parallelism
    size = max(1, p.attn_dp)
    while size <= _MOST_DEVICES:
        wider = p.model_copy(update={"tp": size, "ep": size if p.ep == p.tp else p.ep})
        trial = replace(base, deployment=deployment.model_copy(update={"parallelism": wider}))
        if size * p.pp > base.hardware.num_devices and fit(trial).misses != "weights":
            return size * p.pp
        size *= 2
    return None
