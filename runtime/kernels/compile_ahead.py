"""Compiles what calls will need before the first of them, on many cores at once.

Triton compiles a kernel where it is first launched, seconds each, one after the other and under Python's lock, so that
threads gain nothing. Here child processes compile and leave the result in Triton's cache on disk, where this process
finds it. They are forked and touch no GPU. What they do not bring about is compiled as ever.
"""

from __future__ import annotations

import gc
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from .peer_kernels import PeerKernels
from .peers import Peers
from .prepared import is_warming, launching_nothing

_MOST_WORKERS = 16
_PATIENCE_S = 30.0
"""For a kernel; a compiler takes two or three."""
Compile = Callable[[], Any]


@contextmanager
def compiled_ahead(every: Iterable[Peers], sharing: int = 1) -> Iterator[None]:
    """Calls of these peers in here launch nothing and give what memory held; at the end their kernels are compiled.

    `sharing`: how many processes of this machine do so at the same time. All else runs as ever, so the peers are to be
    those of kernels. One rank may be done long before another: let them meet behind it.
    """
    import triton

    workers = min(_MOST_WORKERS, _cores() // sharing)
    with ExitStack() as stack:
        for peers in every:
            if isinstance(peers, PeerKernels):
                stack.enter_context(peers.apart())
        stack.enter_context(launching_nothing())
        if workers < 2 or not hasattr(triton, "AsyncCompileMode") or not hasattr(os, "fork"):
            yield
            return
        children = _Children(workers)
        # What cannot be compiled fails where it is called.
        stack.enter_context(triton.AsyncCompileMode(children, ignore_errors=True))
        stack.callback(children.forget)  # the mode waits for all that it has
        yield
        children.compile()


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Children(Executor):
    """Takes what is to be compiled, and does all of it at once when it is told."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._jobs: list[tuple[Compile, Future[Any]]] = []

    def submit(self, compile_one: Compile, /, *args: Any, **named: Any) -> Future[Any]:
        """For later, or at once what is not a kernel of ours: it will be launched next."""
        future: Future[Any] = Future()
        job = (lambda: compile_one(*args, **named)), future
        if is_warming():
            self._jobs.append(job)
        else:
            _do(*job)
        return future

    def compile(self) -> None:
        """By children, then here, where little is left to do."""
        jobs = [job for job, _ in self._jobs]
        shares = [share for number in range(self._workers) if (share := jobs[number :: self._workers])]
        if len(jobs) > 1:
            _work(shares, _PATIENCE_S * len(shares[0]))
        for job in self._jobs:
            _do(*job)

    def forget(self) -> None:
        """What has not been done."""
        for _, future in self._jobs:
            if not future.done():
                future.set_exception(RuntimeError("it was not compiled"))


def _do(job: Compile, future: Future[Any]) -> None:
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)


def _work(shares: Iterable[Sequence[Compile]], seconds: float) -> None:
    """A child for each share, until all have ended or the time is over."""
    children: list[int] = []
    until = time.monotonic() + seconds
    try:
        with suppress(OSError):  # no more of them are to be had
            children += (_fork(share) for share in shares)
        while children and time.monotonic() < until:
            children = [child for child in children if _runs(child)]
            time.sleep(0.01)
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _runs(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False  # somebody else waits for children too


def _fork(jobs: Sequence[Compile]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: the child starts none, and ends
        child = os.fork()
    if child:
        return child
    try:
        gc.disable()  # what it would free may be on the GPU
        for job in jobs:
            with suppress(Exception):  # it is tried again where it can be told
                job()
    finally:
        os._exit(0)


__all__ = ["compiled_ahead"]
