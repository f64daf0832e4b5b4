"""NPU tensors without data: the ops really dispatch to torch_npu, which answers by its Meta kernels.

with fake_npu(), traffic() as calls:
    model(torch.zeros(1, 7, dtype=torch.int64, device="npu"))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch_npu  # noqa: F401 registers the npu device
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _FakeNpuTensors(FakeTensorMode):
    avoid_device_init = True  # there is a device in name; starting it fails


class _HostTensorsAreReal(TorchDispatchMode):
    """Ops that touch no NPU tensor run for real: the runtime computes row numbers on the host and reads them there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(_is_npu(leaf) for leaf in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            return func(*args, **kwargs)


def _is_npu(value: Any) -> bool:
    return isinstance(value, FakeTensor) or (isinstance(value, torch.device) and value.type == "npu")


KERNELS = ("npu_dynamic_quant", "npu_rms_norm", "npu_add_rms_norm")


@contextmanager
def fake_npu() -> Iterator[None]:
    """Inside, tensors on device "npu" have shapes and types but no data."""
    with ExitStack() as stack:
        for context in (torch.no_grad(), _FakeNpuTensors(allow_non_fake_inputs=True), _HostTensorsAreReal()):
            stack.enter_context(context)
        yield


class Call(NamedTuple):
    """A collective on NPU tensors over a group of ranks, or a kernel that the backend calls (no ranks).

    `sent` and `received` are the shapes of the message; for a kernel those of its first input and first result, whose
    type `dtype` is.
    """

    name: str
    sent: tuple[int, ...]
    received: tuple[int, ...]
    dtype: torch.dtype
    ranks: tuple[int, ...] = ()


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2]
        if func.namespace == "npu" and name in KERNELS:  # torch_npu also puts ops of its own below aten
            self.calls.append(Call(name, tuple(args[0].shape), tuple(out[0].shape), out[0].dtype))
        elif func.namespace == "c10d":
            received, sent = (args[0][0], args[0][0]) if isinstance(args[0], list) else args[:2]
            if isinstance(sent, torch.Tensor) and sent.device.type == "npu":
                self.calls.append(Call(name, tuple(sent.shape), tuple(received.shape), sent.dtype, _ranks(args)))
        return out


def _ranks(args: Any) -> tuple[int, ...]:
    """Ranks of the group among the arguments of a c10d op."""
    (boxed,) = (arg for arg in args if isinstance(arg, torch.ScriptObject) and "ProcessGroup" in str(arg._type()))
    return tuple(dist.get_process_group_ranks(dist.ProcessGroup.unbox(boxed)))


@contextmanager
def traffic() -> Iterator[list[Call]]:
    """What reaches torch_npu's kernels and the process groups inside, in order."""
    with _Traffic() as recorder:
        yield recorder.calls


class _Ops(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "prim" and any(_is_npu(leaf) for leaf in tree_leaves((args, kwargs))):
            self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@contextmanager
def ops_on_npu_tensors() -> Iterator[set[str]]:
    """Names of the ops that meet NPU tensors inside, as far down as fake tensors take them apart."""
    with _Ops() as recorder:
        yield recorder.names
