"""A deployment with everything it names, read: what planning needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..executors import Executor
from ..strategy.file.fingerprint import fields_fingerprint
from ..strategy.layout import Parallelism
from .base import Spec
from .calibration import Calibration
from .deployment import Deployment
from .hardware import Hardware
from .model import Model


@dataclass(frozen=True)
class UsedCalibration:
    """A calibration as one machine uses it."""

    calibration: Calibration
    transferred_because: str | None
    is_given: bool = False  # by --set, so it is of this very machine, whatever link that was given


@dataclass(frozen=True)
class Setup:
    """Everything that planning needs, read and checked against each other."""

    deployment: Deployment
    model: Model
    hardware: Hardware
    calibrations: tuple[UsedCalibration, ...]
    executor: Executor
    file: str
    sensitivity: dict[str, tuple[float, ...]] | None = None  # weight by boundary and layer
    notes: tuple[str, ...] = ()  # what reading did that its reader should know
    measured_on: Hardware | None = None  # the machine with the link that its tables know, where this one has another

    @cached_property
    def parallelism(self) -> Parallelism:
        """The same numbers as the deployment's, in the words of the layout algebra."""
        p = self.deployment.parallelism
        return Parallelism(p.tp, p.attn_dp, p.ep, p.moe_backend)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """A hash of the content of each description, by which a strategy file knows what it was made for."""
        tables = [c.calibration.model_dump(mode="json", by_alias=True) for c in self.calibrations]
        return {
            "model": fields_fingerprint(self.model.model_dump(mode="json")),
            "hardware": fingerprint(self.hardware, tables),
            "deployment": fingerprint(self.deployment),
        }


def fingerprint(spec: Spec, *more: Any) -> str:
    """First 16 hex digits of the SHA-256 of a description's canonical JSON."""
    data = [spec.model_dump(mode="json", by_alias=True, exclude={"source", "description"}), *more]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
