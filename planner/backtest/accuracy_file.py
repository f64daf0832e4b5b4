"""configs/accuracy/summary.yaml: what the back-tests found, short enough to be read beside every plan.

schema: commplan/accuracy/v1
spreads: {nvidia: {communication: {table: 0.1, ...}, device: {assumed: 0.5, ...}}, nvidia over pcie: {...}, any: {...}}
cases:
- {id: a-case, quantity: throughput, unit: ratio, machine: a-machine, ...}     # each back-test that has a prediction
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..descriptions.base import PositiveInt, Spec, Text, build
from ..descriptions.calibration import MessageBytes
from ..strategy.words import PROVENANCES, Provenance
from ..strategy.yaml_file import flow_text, read_mapping

Kind = Literal["communication", "device"]
"""What travels; what a device does alone, whole steps among it."""
Spreads = dict[Provenance, Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]]
_HEADER = "# What the back-tests found. Printed by `commplan backtest --summary`: do not edit.\n"


class CaseRecord(Spec):
    """A back-test that has a prediction, and where it was measured.

    topology       of the link that its ranks share
    ops            the collectives of its plan
    message_bytes  of the rows that its collectives move; where there are several token counts, in the middle of them
    error          predicted over published, less one
    """

    id: Text
    quantity: Text
    unit: Text
    machine: Text
    vendor: Text
    topology: Text
    ranks: PositiveInt
    ops: tuple[Text, ...]
    message_bytes: MessageBytes
    error: Annotated[float, Field(allow_inf_nan=False, strict=True)]
    verdict: Literal["inside", "outside"]
    provenance: Provenance


class Summary(Spec):
    """Errors of the back-tests, and how far figures of each provenance are off.

    spreads  by vendor (`any`: all of them together), what a figure is of, and its provenance: what 80 % of
             |ln(predicted / measured)| do not exceed. What travels over a shared tree has spreads of its own: hosts of
             one device differ there by more than tables of one host are off
    """

    schema_: Literal["commplan/accuracy/v1"] = Field(alias="schema")
    spreads: dict[str, dict[Kind, Spreads]]
    cases: tuple[CaseRecord, ...]

    def spread(self, vendor: str, kind: Kind, provenance: Provenance, topology: str = "switch") -> float:
        """That of a provenance on a vendor's devices, or on any where nothing was seen there; never less than that of a
        better one, and where nothing was seen of it at all, that of the next weaker. `topology`: of the link that the
        ranks share."""
        at = PROVENANCES.index(provenance)
        of = ("any", vendor, over_link(vendor, topology))
        known = {each: value for name in of for each, value in self.spreads.get(name, {}).get(kind, {}).items()}
        weaker = next((known[each] for each in PROVENANCES[at:] if each in known), 0.0)
        return max([weaker, *(known[each] for each in PROVENANCES[:at] if each in known)])


def is_shared_tree(topology: str) -> bool:
    """True of a link that all devices share, and that no two hosts build alike."""
    return topology == "pcie"


def over_link(vendor: str, topology: str) -> str:
    """The name of the spreads of what travels between a vendor's devices over such a link."""
    return f"{vendor} over {topology}"


def accuracy_path() -> Path:
    """The file that comes with commplan."""
    return Path(str(files("commplan.configs") / "accuracy" / "summary.yaml"))


@cache
def shipped_summary() -> Summary:
    """What the file says."""
    path = accuracy_path()
    return build(Summary, read_mapping(path), str(path))


def summary_text(summary: Summary) -> str:
    """The file of a summary."""
    data = summary.model_dump(by_alias=True)
    lines = [_HEADER.rstrip("\n"), f"schema: {data['schema']}", "spreads:"]
    lines += [f"  {vendor}: {flow_text(spreads)}" for vendor, spreads in data["spreads"].items()]
    lines.append("cases:")
    lines += [f"- {flow_text(case)}" for case in data["cases"]]
    return "\n".join(lines)
