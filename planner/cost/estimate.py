"""What the cost model returns."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from ..strategy.words import PROVENANCES, Provenance


@dataclass(frozen=True, slots=True)
class Estimate:
    """A time, with the bytes a rank receives over the wire, and where the number comes from.

    `launch_us` is the part of the cost that does not depend on the size: launches and library calls. A table's latency
    contains them already, so there it is 0.
    """

    time_us: float
    launch_us: float
    wire_bytes: float
    provenance: Provenance
    source: str

    @property
    def total_us(self) -> float:
        """Time with launches."""
        return self.time_us + self.launch_us

    def scaled(self, factor: float) -> Estimate:
        """The same where what is not communication takes `factor` times as long."""
        if factor == 1.0 or self.wire_bytes:
            return self
        return replace(self, time_us=self.time_us * factor, launch_us=self.launch_us * factor)


def weakest(provenances: Set[Provenance]) -> Provenance:
    """The provenance of a sum of figures: it is only as well known as its weakest part."""
    return max(provenances, key=PROVENANCES.index) if provenances else "formula"
