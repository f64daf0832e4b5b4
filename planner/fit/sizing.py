"""How many devices a model takes: the smallest group that holds its weights and the KV cache of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..descriptions.model import Model
from ..descriptions.setup import Setup
from ..strategy.errors import InputError
from .verdict import Fit, fit
from .words import does_not_fit


@dataclass(frozen=True)
class Sized:
    """A setup and its fit. Where `fit.most_tokens` names a mode, no group holds all its tokens: this one most."""

    setup: Setup
    fit: Fit

    @property
    def holds_some(self) -> bool:
        """True where every mode finds room for some tokens."""
        return self.fit.misses != "weights" and all(self.fit.most_tokens.values())


def sizes(num_devices: int, devices_per_node: int) -> list[int]:
    """Group sizes to try, the smallest first: powers of two, a node, all devices; 1 only where there is one."""
    powers = [2**n for n in range(1, num_devices.bit_length()) if 2**n <= num_devices]
    return sorted({*powers, *(size for size in (devices_per_node, num_devices) if size > 1)}) or [1]


def splits(model: Model, tp: int) -> Iterator[int]:
    """Sizes of expert parallelism to try at a tp: first none."""
    yield 1
    if model.is_moe:
        yield from (ep for ep in range(2, tp + 1) if tp % ep == 0)


def smallest(model: Model, tps: list[int], setup_at: Callable[[int, int], Setup]) -> Sized:
    """The first size that holds everything, else the one that holds most.

    setup_at  makes the setup of a tp and an ep; raises InputError where the model cannot be split so

    Raises the first of these where no size can be had, and DoesNotFitError where none holds the weights.
    """
    found: list[Sized] = []
    refused: list[InputError] = []
    for tp in tps:
        for ep in splits(model, tp):
            try:
                setup = setup_at(tp, ep)
            except InputError as error:
                refused.append(error)
                continue
            sized = Sized(setup, fit(setup))
            if sized.fit.fits:
                return sized
            found.append(sized)
            break  # another ep holds no more
    if not found:
        raise refused[0]
    holding = [sized for sized in found if sized.holds_some]
    if not holding:
        raise does_not_fit(found[-1].setup, found[-1].fit)
    return max(holding, key=lambda sized: (min(sized.fit.most_tokens.values()), -sized.setup.parallelism.tp))
