"""Kernels made ready once, and launched with nothing looked at but pointers.

Triton's own launch asks of every argument of every call what it is, to find the kernel compiled for it: more time than
the kernel takes for few rows. What is fixed by the shapes of a call is settled here on the first one; whoever calls
keeps a Start for the same shapes and types alone. What is left to differ is memory, so a kernel is compiled for each
combination of arrays that begin at a multiple of 16 bytes and those that do not. Hooks around launches
(`triton.knobs.runtime`) are not called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, get_args

import torch
from torch import Tensor

from ..errors import RefusedError
from .row_launch import Dependence, Launch

DEPENDENCE_VARIABLE = "COMMPLAN_DEPENDENT_LAUNCH"
_DEPENDENCES: tuple[Dependence, ...] = get_args(Dependence)

Start = Callable[..., None]
"""Launches a kernel on the stream of now, for (rows, result); with a norm (rows, residual, weight, normed, sum)."""


def dependence_on(device: torch.device) -> Dependence:
    """How kernels on a device depend on the one before: as COMMPLAN_DEPENDENT_LAUNCH says, else `early`."""
    said = os.environ.get(DEPENDENCE_VARIABLE, "early")
    if said not in _DEPENDENCES:
        raise RefusedError(
            f"says how a kernel depends on the one before: {', '.join(_DEPENDENCES)}",
            field=DEPENDENCE_VARIABLE,
            value=said,
        )
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (9, 0):
        return "off"  # there is no such launch
    return said


_launches_nothing: ContextVar[bool] = ContextVar("launches_nothing", default=False)
_is_warming: ContextVar[bool] = ContextVar("is_warming", default=False)


def is_warming() -> bool:
    """True while a kernel of ours is asked for that is not to be launched."""
    return _is_warming.get()


def is_launching() -> bool:
    """False where what is started is compiled alone."""
    return not _launches_nothing.get()


@contextmanager
def launching_nothing() -> Iterator[None]:
    """What is prepared in here is compiled when it is started, and not launched."""
    before = _launches_nothing.set(True)
    try:
        yield
    finally:
        _launches_nothing.reset(before)


def prepare(launch: Launch, group: tuple[Tensor, ...]) -> Start:
    """A launch with the group's own arrays, by the low-level launcher where the kernel is compiled."""
    from triton.runtime.jit import JITFunction

    if launch.programs == 0:
        return _nothing
    if isinstance(launch.kernel, JITFunction):
        return _compiled(launch, group)
    return _nothing if _launches_nothing.get() else _interpreted(launch, group)


def _nothing(*arrays: Any) -> None:
    """There are no rows, or nothing is to be launched."""


def _interpreted(launch: Launch, group: tuple[Tensor, ...]) -> Start:
    run = launch.kernel[(launch.programs,)]

    def start(*arrays: Tensor) -> None:
        run(*_all_of(launch, arrays), *group, *launch.numbers, **launch.constants)

    return start


def _all_of(launch: Launch, arrays: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a kernel takes: pointers even for what it does not read."""
    if len(arrays) == launch.arrays:
        return arrays
    x, out = arrays
    return x, x, x, out, out


Entry = tuple[Callable[..., None], tuple[Any, ...]]
"""What launches a compiled kernel, and what it takes between the stream and the kernel's own arguments."""


def _entry(kernel: Any) -> Entry:
    """By the launcher in C itself, where it is the one known here and there is no scratch memory to allocate.

    Triton's object around it looks for that in every call, and finds none.
    """
    import triton

    run = kernel.run  # loads it
    metadata = kernel.packed_metadata, None, None, None  # no hooks
    scratch = getattr(run, "global_scratch_size", 1) or getattr(run, "profile_scratch_size", 1)
    if scratch or not triton.__version__.startswith("3.6."):
        return run, (kernel.function, *metadata)
    return run.launch, (kernel.function, run.launch_cooperative_grid, run.launch_pdl, None, None, *metadata)


def _compiled(launch: Launch, group: tuple[Tensor, ...]) -> Start:
    from triton.runtime import driver

    kernel, programs, device = launch.kernel, launch.programs, group[0].get_device()
    stream_of: Callable[[int], int] = driver.active.get_current_stream
    inputs = 3 if launch.arrays > 2 else 1
    constants = [launch.constants[name] for name in kernel.arg_names if name in launch.constants]
    # Pinned memory has one address for the host and the device.
    tail = (*(array.data_ptr() for array in group), *launch.numbers, *constants)
    made: dict[Any, Entry] = {}

    def make(arrays: tuple[Tensor, ...]) -> Entry:
        arrays = _all_of(launch, arrays)
        given = (*arrays, *group, *launch.numbers)
        if _launches_nothing.get():
            before = _is_warming.set(True)
            try:
                kernel.warmup(*given, grid=(programs,), **launch.constants, **launch.options)
            finally:
                _is_warming.reset(before)
            return _nothing, ()
        found = kernel.warmup(*given, grid=(programs,), **launch.constants, **launch.options)
        found = found.result() if hasattr(found, "result") else found
        aligned = tuple(array.data_ptr() % 16 == 0 for array in arrays[:inputs])
        entry = made[0 if all(aligned) else aligned] = _entry(found)
        return entry

    def exchange(x: Tensor, out: Tensor) -> None:
        here = x.data_ptr()
        run, head = made.get(here & 15 and (False,)) or make((x, out))
        run(programs, 1, 1, stream_of(device), *head, here, out.data_ptr(), *tail)

    def bare(x: Tensor, out: Tensor) -> None:
        here, there = x.data_ptr(), out.data_ptr()
        run, head = made.get(here & 15 and (False, False, False)) or make((x, out))
        run(programs, 1, 1, stream_of(device), *head, here, here, here, there, there, *tail)

    def normed(x: Tensor, residual: Tensor, weight: Tensor, out: Tensor, total: Tensor) -> None:
        a, b, c = x.data_ptr(), residual.data_ptr(), weight.data_ptr()
        odd = (a | b | c) & 15
        found = made.get(odd and (a & 15 == 0, b & 15 == 0, c & 15 == 0))
        run, head = found or make((x, residual, weight, out, total))
        run(programs, 1, 1, stream_of(device), *head, a, b, c, out.data_ptr(), total.data_ptr(), *tail)

    if launch.constants.get("NORM"):
        return normed
    return exchange if inputs == 1 else bare
