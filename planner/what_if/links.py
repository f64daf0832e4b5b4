"""Measured tables on a link of another speed.

A table knows nothing of a link that nobody has built. `--set hardware.links...` therefore drops the tables; a sweep
would then compare a formula with a table and find differences that are not the link's. So a sweep scales each point of
a table by what the formula says the new link makes of it: time * formula(new link) / formula(old link), provenance
`formula`. At the old link's own figures the tables stand as they are.
"""

from __future__ import annotations

from dataclasses import replace

from ..cost.estimate import weakest
from ..cost.links import one_level_us, placement
from ..cost.one_kernel import formula_us, received_bytes
from ..cost.terms import OneKernel
from ..spec.base import Figure, Spec
from ..spec.calibration import Calibration, Table
from ..spec.deployment import DTYPE_BYTES
from ..spec.hardware import Hardware
from ..spec.loader import Setup, UsedCalibration

NOTE = "tables are scaled by the formula's ratio of the varied link to the machine's own"


def with_scaled_tables(varied: Setup, own: Setup) -> Setup:
    """`varied` with the tables of `own`, scaled from its link to the varied one."""
    # Tables are of groups inside a node; what lies between nodes is always priced by its formula.
    if _figures(varied.hardware.links.intra_node) == _figures(own.hardware.links.intra_node):
        return replace(varied, calibrations=own.calibrations)
    p = varied.parallelism
    groups = {placement(group, p, varied.hardware).per_node for group in ("tp", "attn_tp", "attn_dp")}
    kernels = frozenset(name for name, impl in own.executor.impls.items() if impl.kind == "one_kernel")
    scaled = (_scaled(used, own.hardware, varied.hardware, groups, kernels) for used in own.calibrations)
    return replace(varied, calibrations=tuple(used for used in scaled if used.calibration.tables))


def _figures(value: object) -> object:
    """The links without the sources of their figures."""
    if isinstance(value, Figure):
        return value.value
    if isinstance(value, Spec):
        return {name: _figures(getattr(value, name)) for name in type(value).model_fields}
    return value


def _scaled(
    used: UsedCalibration, own: Hardware, varied: Hardware, groups: set[int], kernels: frozenset[str]
) -> UsedCalibration:
    """A calibration on the varied link, with the tables that groups of these sizes ask for.

    `kernels` are the impls that are one kernel: what those compute between their bytes is scaled along.
    """
    calibration = used.calibration
    source = f"{calibration.source}; {NOTE}"
    if used.transferred_because:
        source = f"{calibration.machine} table: {used.transferred_because} ({source})"
    changed: Calibration = calibration.model_copy(
        update={
            "provenance": weakest({calibration.provenance, "formula"}),
            "source": source,
            "tables": tuple(
                _table(t, own, varied, t.impl in kernels) for t in calibration.tables if t.group_size in groups
            ),
        }
    )
    return UsedCalibration(changed, None)


def _table(table: Table, own: Hardware, varied: Hardware, is_kernel: bool) -> Table:
    formula = _kernel_us if is_kernel else _formula_us
    latencies = tuple(
        latency * formula(table, size, varied) / formula(table, size, own)
        for size, latency in zip(table.message_bytes, table.latency_us, strict=True)
    )
    return table.model_copy(update={"latency_us": latencies})


def _formula_us(table: Table, message_bytes: int, hardware: Hardware) -> float:
    devices = hardware.devices_per_node
    return sum(
        one_level_us(table.op, min(table.group_size, devices), message_bytes, hardware.links.intra_node, devices)
    )


def _kernel_us(table: Table, message_bytes: int, hardware: Hardware) -> float:
    element, size = DTYPE_BYTES[table.dtype], table.group_size
    work = OneKernel(table.op, table.impl, table.dtype, "tp", element, table.algorithm, table.attn_dp)
    return formula_us(received_bytes(work, size, message_bytes, table.width), size, hardware)
