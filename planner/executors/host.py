"""What the host does for a forward: launches from Python, which cost nothing when a graph replays them.

Figures are times on the host from one call to the next *within a forward*, so that the device has had nothing to do
with them: in a loop of one call alone, caches are warm and a call costs a half or a third.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from ..descriptions.base import Count, FieldError, Figure, Spec, Text
from ..strategy.errors import did_you_mean
from ..strategy.words import FORWARD_MODES, IMPL_KINDS, ForwardMode, LaunchState
from .where import Graphs


class FixedLaunches(Spec):
    """Kernels that a forward launches whatever the plan is, by kind of layer. What an op brings with it is not in them.

    `latent_attention` is MLA; `source` says who counted them, and in what.
    """

    full_attention: Count
    latent_attention: Count
    linear_attention: Count
    dense: Count
    moe: Count
    embed: Count  # before the first boundary: embedding, positions
    source: Text


class Host(Spec):
    """The host of an executor.

    launch     who launches a mode's kernels: `eager` the host, one by one; `graph` a replay, at no cost here
    graphs     what a mode that is `eager` replays from graphs all the same; of rules that cover a forward the first
    launch_us  one ordinary kernel, by a torch op with the views and the module around it
    calls      one call of an impl, by its name or by its kind; an impl without either is an ordinary launch
    """

    launch: dict[ForwardMode, LaunchState]
    graphs: tuple[Graphs, ...] = ()
    launch_us: Figure
    calls: dict[Text, Figure] = Field(default_factory=dict)
    launches: FixedLaunches

    @model_validator(mode="after")
    def _every_mode(self) -> Host:
        for mode in FORWARD_MODES:
            if mode not in self.launch:
                raise FieldError(f"launch.{mode}", "is missing and has no default", kind="missing_key")
        return self

    def check_calls(self, impls: tuple[str, ...]) -> None:
        """Raise FieldError for a call of an impl that the executor has not."""
        accepted = (*impls, *IMPL_KINDS)
        for name in self.calls:
            if name not in accepted:
                raise FieldError(f"host.calls.{name}", f"no such impl or kind; {did_you_mean(name, accepted)}", name)
