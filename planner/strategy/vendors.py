"""Backends: the libraries that carry collectives, one record each. A machine names one, and the vendor of its devices.

How its collectives are called stands in runtime/backends/, in a file of the same name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackendRecord:
    """What is known of a library without loading it.

    vendor       of the devices that it joins: one, since a strategy file names the backend alone
    device_type  of these devices, as torch spells it
    torch_name   of its process groups, where torch spells it otherwise: RCCL goes by the name of NCCL
    rings        small messages go round a ring, so that each rank is one more step; else straight to every peer
    """

    vendor: str
    device_type: str
    torch_name: str | None = None
    rings: bool = False


BACKENDS = {
    "nccl": BackendRecord("nvidia", "cuda", rings=True),
    "rccl": BackendRecord("amd", "cuda", torch_name="nccl", rings=True),
    "hccl": BackendRecord("ascend", "npu"),
    "gloo": BackendRecord("cpu", "cpu", rings=True),
}
VENDORS = tuple(dict.fromkeys(record.vendor for record in BACKENDS.values()))
