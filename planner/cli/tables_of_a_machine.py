"""How a calibration file is named before the tables that a machine has: for the commands that write one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..strategy.yaml_file import flow_text

if TYPE_CHECKING:
    from ..descriptions.hardware import Hardware


def set_before(output: str, hardware: Hardware | None) -> str:
    """The override that puts a file's tables before those of the machine."""
    uses = hardware.calibrations if hardware is not None else ()
    others = [use.model_dump(exclude_none=True) for use in uses if use.file != output]
    return f"hardware.calibrations={flow_text([{'file': output}, *others])}"
