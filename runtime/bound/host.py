"""Is there on this host what ranks will need? Looked at before any rank is started: ranks take many seconds to say no.

Imports no torch, and loads it only where a backend has devices to be counted.
"""

from __future__ import annotations

from commplan.planner.strategy.packages import check_packages
from commplan.planner.strategy.vendors import BACKENDS

from ..errors import RefusedError

_FOR_BOUNDARIES = ("torch",)
_FOR_MODELS = ("torch", "transformers", "accelerate", "safetensors")


def check_host(backend_name: str, ranks: int, *, models: bool = False) -> None:
    """Raises InputError or RefusedError where this host cannot run so many ranks over a backend.

    `models`: checkpoints will be loaded, which takes more packages.
    """
    check_packages(*(_FOR_MODELS if models else _FOR_BOUNDARIES), extra="runtime")
    record = BACKENDS.get(backend_name)
    if record is not None and record.device_type == "cpu":  # as many ranks as wanted
        return
    from ..backends import load_backend

    backend = load_backend(backend_name)
    devices = backend.device_count()
    if devices < ranks:
        raise RefusedError(
            f"{ranks} ranks need as many {backend.device_type} devices, and this host shows {devices}; "
            "plan for the hardware that is there",
            field="hardware.backend",
            value=backend_name,
        )
