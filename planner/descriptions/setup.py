"""A deployment with everything it names, read: what planning needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ..executors import Executor
from ..strategy.errors import CommplanError
from ..strategy.executor_file import Impl
from ..strategy.file.fingerprint import fields_fingerprint
from ..strategy.layout import Parallelism
from .base import Spec
from .calibration import Calibration
from .deployment import Deployment
from .hardware import Hardware
from .model import Model
from .weight_types import WEIGHT_TYPES, WeightFormat

if TYPE_CHECKING:
    from .sensitivity import Sensitivity


E = TypeVar("E", bound=CommplanError)


@dataclass(frozen=True)
class UsedCalibration:
    """A calibration as one machine uses it. `scale` multiplies its message sizes: it was measured on another link."""

    calibration: Calibration
    transferred_because: str | None
    scale: float = 1.0
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
    sensitivity: Sensitivity | None = None
    notes: tuple[str, ...] = ()  # what reading did that its reader should know
    measured_on: Hardware | None = None  # the machine with the link that its tables know, where this one has another
    lent: tuple[UsedCalibration, ...] = ()  # tables of other machines, behind those of this one
    overrides: dict[str, Any] = field(default_factory=dict)  # fields that `--set` gave, with their values

    @cached_property
    def parallelism(self) -> Parallelism:
        """The same numbers as the deployment's, in the words of the layout algebra."""
        p = self.deployment.parallelism
        return Parallelism(p.tp, p.attn_dp, p.ep, p.moe_backend, p.pp)

    def in_its_file(self, error: E) -> E:
        """The same error with the deployment's file named, or `--set` where that gave the field."""
        given = any(error.field == f or (error.field or "").startswith((f"{f}.", f"{f}[")) for f in self.overrides)
        return error.in_file("--set" if given else self.file)

    @cached_property
    def impls(self) -> dict[str, Impl]:
        """The executor's, and the machine's library even where the executor has none: a server's rules need one."""
        backend = self.hardware.backend
        library = {} if backend in self.executor.impls else {backend: Impl(vendors=(self.hardware.vendor,))}
        return {**self.executor.impls, **library}

    @cached_property
    def weights(self) -> WeightFormat:
        """The type of the weights with its block, of the deployment, else of the checkpoint, else of the type."""
        dtypes, checkpoint = self.deployment.dtypes, self.model.quantization
        same = checkpoint is not None and checkpoint.weights == dtypes.weights
        block = checkpoint.block if checkpoint is not None and same else WEIGHT_TYPES[dtypes.weights].block
        if "weight_block" in dtypes.model_fields_set:
            block = dtypes.weight_block
        if checkpoint is None or not same:
            return WeightFormat(dtypes.weights, block)
        if checkpoint.other is None:
            return WeightFormat(dtypes.weights, block, checkpoint.unquantized)
        other = WeightFormat(checkpoint.other.weights, checkpoint.other.block)
        return WeightFormat(dtypes.weights, block, checkpoint.unquantized, other, checkpoint.other.parts)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """A hash of the content of each description, by which a strategy file knows what it was made for."""
        tables = [c.calibration.model_dump(mode="json", by_alias=True) for c in self.calibrations]
        asked = (self.hardware.compute_capability,) if self.executor.asks_capability else ()
        return {
            "model": fields_fingerprint(self.model.model_dump(mode="json")),
            "hardware": fingerprint(self.hardware, tables, *asked),
            "deployment": fingerprint(self.deployment),
        }


# What a plan does not depend on; on a compute capability only where its executor has limits by it.
_APART: dict[str, Any] = {
    "compute_capability": True,
    "source": True,
    "description": True,
    "loaded_layers": True,
    "limits": {"static_fraction"},
}


def fingerprint(spec: Spec, *more: Any) -> str:
    """First 16 hex digits of the SHA-256 of a description's canonical JSON, without what no plan depends on."""
    fields: dict[str, Any] = spec.model_dump(mode="json", by_alias=True, exclude=_APART)
    dtypes = fields.get("dtypes", {})
    if dtypes.get("weight_block", 0) is None:
        del dtypes["weight_block"]
    data = [fields, *more]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
