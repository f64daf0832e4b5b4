"""A fresh run of all that is compared with measurements, summed up as configs/accuracy/summary.yaml holds it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from ..descriptions.base import build
from ..descriptions.calibration import Calibration
from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.loader import find, preset_names
from ..descriptions.setup import Setup
from ..search.planning import ModePlanner
from ..strategy.vendors import BACKENDS
from ..strategy.words import PROVENANCES, Provenance
from ..strategy.yaml_file import read_mapping
from .accuracy_file import CaseRecord, Kind, Spreads, Summary, is_shared_tree, over_link
from .case import Case, read_case, shipped_cases
from .held_out import held_out_errors
from .quantities import plan_named
from .run import NOT_COMPARABLE, Outcome, run_case, setup_of

_SHARE = 0.8  # of the errors, that a spread covers
_ABSOLUTE = ("us", "tokens/s")
_OF_COLLECTIVES = ("collective_time", "op_latency")
Errors = dict[str, dict[Provenance, list[float]]]
"""By vendor and provenance."""


def fresh_summary() -> Summary:
    """Runs every case that ships, and holds out every point of every table that ships."""
    outcomes = [(path, run_case(read_case(path), path)) for path in shipped_cases()]
    found = [(path, outcome) for path, outcome in outcomes if outcome.verdict != NOT_COMPARABLE]
    cases = tuple(_record(path, outcome) for path, outcome in found)
    absolute = [record for record in cases if record.unit in _ABSOLUTE]
    tables, of_hosts = _of_tables()
    vendors = sorted({record.vendor for record in absolute} | set(tables))
    shared = [record for record in absolute if is_shared_tree(record.topology)]
    alone = [record for record in absolute if record not in shared or record.quantity not in _OF_COLLECTIVES]
    spreads = {vendor: _by_kind(alone, tables, (vendor,)) for vendor in vendors}
    for record in shared:
        of_link = spreads.setdefault(over_link(record.vendor, record.topology), {})
        of_link["communication"] = _by_kind(shared, of_hosts, (record.vendor,))["communication"]
    spreads["any"] = _by_kind(alone, tables, vendors)
    return Summary(schema="commplan/accuracy/v1", spreads=spreads, cases=cases)


def _by_kind(records: Iterable[CaseRecord], tables: Errors, vendors: Iterable[str]) -> dict[Kind, Spreads]:
    mine = [record for record in records if record.vendor in vendors]
    held: dict[Provenance, list[float]] = {}
    for vendor in vendors:
        for provenance, errors in tables.get(vendor, {}).items():
            held.setdefault(provenance, []).extend(errors)
    return {
        "communication": _spreads([r for r in mine if r.quantity in _OF_COLLECTIVES], held),
        "device": _spreads([r for r in mine if r.quantity not in _OF_COLLECTIVES], {}),
    }


def _spreads(records: Iterable[CaseRecord], held_out: dict[Provenance, list[float]]) -> Spreads:
    """Of back-tests and held-out tables alike: each counts once."""
    seen = {provenance: list(errors) for provenance, errors in held_out.items()}
    for record in records:
        seen.setdefault(record.provenance, []).append(abs(math.log1p(record.error)))
    return {each: round(_percentile(seen[each]), 4) for each in PROVENANCES if seen.get(each)}


def _of_tables() -> tuple[Errors, Errors]:
    """How far 80 % of the held-out points of a table that a machine reads are off at most; apart, of what was measured
    on a machine whose devices share a tree. A published table of such a machine tells little of another host's."""
    errors: Errors = {}
    of_hosts: Errors = {}
    machines = [read_mapping(find(name, "hardware", None, "hardware")) for name in preset_names("hardware")]
    read: dict[str, bool] = {}
    for machine in machines:
        for use in machine.get("calibrations", ()):
            shared = is_shared_tree(machine["links"]["intra_node"]["topology"])
            read[use["file"]] = read.get(use["file"], True) and shared
    for name in preset_names("calibrations"):
        if name not in read:  # it stands beside others in benchmarks alone
            continue
        path = find(name, "calibrations", None, "calibration")
        calibration = build(Calibration, read_mapping(path), str(path))
        for table in calibration.tables:
            held = held_out_errors(table.message_bytes, table.latency_us)
            if held and table.impl in BACKENDS:  # of libraries, whose impl says the vendor
                is_own = read[name] and calibration.provenance == "measured"
                by_provenance = (of_hosts if is_own else errors).setdefault(BACKENDS[table.impl].vendor, {})
                by_provenance.setdefault(calibration.provenance, []).append(_percentile(held))
    return errors, of_hosts


def _percentile(values: list[float]) -> float:
    """The smallest value that `_SHARE` of them do not exceed."""
    return sorted(values)[math.ceil(_SHARE * len(values)) - 1]


def _record(path: Path, outcome: Outcome) -> CaseRecord:
    case, setup = outcome.case, setup_of(outcome.case, path)
    ranks = case.op.group_size if case.op is not None else setup.parallelism.tp
    link = setup.hardware.links.intra_node
    if ranks > setup.hardware.devices_per_node and setup.hardware.links.inter_node is not None:
        link = setup.hardware.links.inter_node
    assert outcome.error is not None and outcome.provenance is not None
    return CaseRecord(
        id=case.id,
        quantity=case.quantity,
        unit=outcome.unit,
        machine=setup.hardware.name,
        vendor=setup.hardware.vendor,
        topology=link.topology,
        ranks=ranks,
        ops=_ops(case, setup),
        message_bytes=_message_bytes(case, setup),
        error=round(outcome.error, 4),
        verdict="inside" if outcome.verdict == "inside" else "outside",
        provenance=outcome.provenance,
    )


def _ops(case: Case, setup: Setup) -> tuple[str, ...]:
    if case.op is not None:
        return (case.op.op,)
    assert case.mode is not None and case.of is not None
    plan = plan_named(ModePlanner(setup, case.mode), case.of, case.tokens[-1])
    return tuple(sorted({edge.op.name for edge in plan.edges if edge.op.kind.is_collective}))


def _message_bytes(case: Case, setup: Setup) -> int:
    if case.op is not None:
        return case.op.message_bytes
    tokens = math.exp(fmean(math.log(count) for count in case.tokens))
    return round(tokens * setup.model.hidden_size * DTYPE_BYTES[setup.deployment.dtypes.activations])
