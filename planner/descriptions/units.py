"""Figures of data sheets as people type them: `80 GiB`, `4.8 TB/s`, `400 Gb/s`, `2.5 PFLOP/s`, or a bare number.

A bare number is in the unit of the field. Bits and bytes differ by the case of a `b` alone, so where that would decide,
another spelling is refused rather than guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..strategy.errors import InputError

_NUMBER = re.compile(
    r"([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(e[0-9]{1,2})?\s*([A-Za-z/]*)\Z"
)
_BITS = re.compile(r"[KMGTP]i?b(it)?(/s|ps)?\Z")
_DIGITS = 6  # of a converted figure: more than any data sheet has


@dataclass(frozen=True)
class Quantity:
    """What a figure measures: its unit, what other units are of it, and the range in which devices lie."""

    unit: str
    units: dict[str, float]
    least: float
    most: float

    def read(self, text: str, field: str | None = None) -> float:
        """The figure in `unit`; raises InputError for what is no figure, in no known unit, or of no device."""
        match = _NUMBER.match(text.strip())
        if match is None:
            units = ", ".join(self.units)
            expected = f"a number is expected, in {self.unit} or with its unit ({units}), as in 3350, 3,350 or 3.35"
            raise InputError(expected, field=field, value=text)
        value = float(match[1].replace(",", "") + (match[2] or "")) * self._factor(match[3], text, field)
        value = float(f"{value:.{_DIGITS}g}")
        if not self.least <= value <= self.most:
            expected = f"{value:g} {self.unit} is no figure of a device; {self.least:g} to {self.most:,.0f} is accepted"
            raise InputError(expected, field=field, value=text)
        return value

    def _factor(self, unit: str, text: str, field: str | None) -> float:
        if not unit:
            return 1.0
        if unit in self.units:
            return self.units[unit]
        alike = [known for known in self.units if known.lower() == unit.lower()]
        if len({self.units[known] for known in alike}) == 1 and not _BITS.match(unit):
            return self.units[alike[0]]
        which = " or ".join(alike) if alike else ", ".join(self.units)
        raise InputError(f"which unit is meant? accepted: {which}", field=field, value=text)


GIB, TIB = 2**30 / 1e9, 2**40 / 1e9
BYTES = Quantity("GB", {"GB": 1.0, "GiB": GIB, "TB": 1e3, "TiB": TIB}, 0.5, 100_000)
_RATES = {"GB/s": 1.0, "GiB/s": GIB, "TB/s": 1e3, "TiB/s": TIB, "MB/s": 1e-3, "Gb/s": 0.125, "Gbit/s": 0.125,
          "Gbps": 0.125, "GBps": 1.0, "Tb/s": 125.0, "Tbit/s": 125.0, "Tbps": 125.0, "TBps": 1e3}  # fmt: skip
MEMORY_RATE = Quantity("GB/s", _RATES, 1, 1_000_000)
LINK_RATE = Quantity("GB/s", _RATES, 0.01, 100_000)
ARITHMETIC = Quantity(
    "TFLOP/s",
    {"TFLOP/s": 1.0, "TFLOPS": 1.0, "TFLOPs": 1.0, "PFLOP/s": 1e3, "PFLOPS": 1e3, "PFLOPs": 1e3, "GFLOP/s": 1e-3,
     "GFLOPS": 1e-3, "TOP/s": 1.0, "TOPS": 1.0, "POPS": 1e3},
    0.01,
    1_000_000,
)  # fmt: skip
