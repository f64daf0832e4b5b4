"""How torch_npu presents itself to torch: the device, the backend hccl, and what the group behind it implements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch_npu

from commplan.planner.strategy.file import Parallelism
from commplan.runtime.backends import load_backend
from commplan.runtime.backends.hccl import HcclBackend
from commplan.runtime.errors import RefusedError

from .fake_npu import fake_npu, traffic
from .fake_world import FakeWorld
from .test_op_contracts import npu


def test_npu_is_the_accelerator_of_this_torch() -> None:
    assert torch._C._get_privateuse1_backend_name() == "npu"
    accelerator = torch.accelerator.current_accelerator(check_available=False)
    assert accelerator is not None and accelerator.type == "npu"
    assert torch.npu is torch_npu.npu  # type: ignore[attr-defined]


def test_hccl_is_the_backend_of_npu_tensors() -> None:
    assert dist.is_backend_available("hccl")
    assert dist.Backend("hccl") == "hccl"
    assert dist.Backend.backend_capability["hccl"] == ["npu"]
    assert dist.Backend.default_device_backend_map["npu"] == "hccl"
    assert str(dist.distributed_c10d.BackendConfig(dist.Backend("hccl"))) == "npu:hccl"


def test_names_of_our_backend_are_those_that_torch_knows() -> None:
    backend = load_backend("hccl")
    assert isinstance(backend, HcclBackend)
    assert dist.is_backend_available(backend.name)
    assert torch.device(backend.device_type, 0).type == "npu"
    assert dist.Backend.default_device_backend_map[backend.device_type] == backend.name


def test_collectives_arrive_at_methods_that_the_hccl_group_implements(fake_world: FakeWorld) -> None:
    group, backend = fake_world(Parallelism(4), 0).tp, HcclBackend()
    with fake_npu(), traffic() as calls:
        x = npu(8, 130)
        backend.all_reduce(x, group)
        backend.reduce_scatter(x, group)
        backend.all_gather(x, group)
        backend.all_to_all(x, group)
        backend.all_to_all_uneven(x, [8, 0, 0, 0], [8, 0, 0, 0], group)
    reached = [call.name for call in calls]
    assert reached == ["allreduce_", "_reduce_scatter_base_", "_allgather_base_", "alltoall_base_", "alltoall_base_"]
    implemented = _methods_of("c10d_npu::ProcessGroupHCCL")
    assert {name.removesuffix("_") for name in reached} <= implemented


def _methods_of(cpp_class: str) -> set[str]:
    library = Path(torch_npu.__file__).parent / "lib" / "libtorch_npu.so"
    command = ["nm", "--dynamic", "--defined-only", "--demangle", str(library)]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    prefix = f" {cpp_class}::"
    return {line.partition(prefix)[2].partition("(")[0] for line in symbols if prefix in line}


def test_the_device_of_a_rank_is_made_current(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch_npu.npu, "set_device", current.append)
    assert HcclBackend().device(0) == torch.device("npu", 0)
    assert current == [0]


def test_a_rank_without_an_npu_of_its_own_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"LOCAL_RANK: torch_npu sees 1 NPUs on this host \(got 1\)"):
        HcclBackend().device(1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'torch_npu'", name="torch_npu"), r"pip install '\.\[npu\]'"),
        (ImportError("libhccl.so: cannot open shared object file"), r"libhccl\.so: .*; is CANN installed"),
        (RuntimeError("Two accelerators cannot be used at the same time\n[ERROR]"), "at the same time"),
    ],
    ids=["not installed", "without CANN", "beside another accelerator"],
)
def test_a_torch_npu_that_cannot_be_imported_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    class Broken:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "torch_npu":
                raise error

    monkeypatch.delitem(sys.modules, "torch_npu")
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(RefusedError, match=reason) as refused:
        load_backend("hccl")
    assert (refused.value.field, refused.value.value) == ("hardware.backend", "hccl")


def test_nothing_can_execute_here() -> None:
    """So that no test of this folder can be mistaken for an execution."""
    with pytest.raises(RuntimeError, match="aclInit"):
        torch.ones(2, device="npu")
