"""What the cost model returns."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES = ("wire", "quantize", "norm", "residual", "latent_gemm", "padding")

# From the best known to the least: a sum is only as well known as its weakest part.
PROVENANCE_ORDER = ("measured", "table", "table (transferred)", "datasheet", "formula", "assumed")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A time, with the bytes a rank receives over the wire, and where the number comes from.

    `launch_us` is the part of the cost that does not depend on the size: launches and library calls. A table's latency
    contains them already, so there it is 0.
    """

    time_us: float
    launch_us: float
    wire_bytes: float
    provenance: str
    source: str

    @property
    def total_us(self) -> float:
        """Time with launches."""
        return self.time_us + self.launch_us


def weakest(provenances: set[str]) -> str:
    """The provenance of a sum of figures."""
    return max(provenances, key=PROVENANCE_ORDER.index) if provenances else "formula"
