"""Compiles what calls will need before the first of them, on many cores at once.

Triton compiles a kernel where it is first launched, seconds each, one after the other and under Python's lock, so that
threads gain nothing. Here child processes compile and leave the result in Triton's cache on disk, where this process
finds it. They are forked and touch no GPU. What they do not bring about is compiled as ever.
"""

from __future__ import annotations

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
from .prepared import launching_nothing

_MOST_WORKERS = 16
_PATIENCE_S = 30.0
"""For a kernel; a compiler takes two or three."""
Compile = Callable[[], Any]


@contextmanager
def compiled_ahead(every: Iterable[Peers], sharing: int = 1) -> Iterator[None]:
    """Calls of these peers in here launch nothing and give what memory held; at the end their kernels are compiled.

    `sharing`: how many processes of this machine do so at the same time. Call nothing else in here: what is not a
    kernel of ours runs as ever.
    """
    import triton

    workers = min(_MOST_WORKERS, (os.cpu_count() or 1) // sharing)
    with ExitStack() as stack:
        for peers in every:
            if isinstance(peers, PeerKernels):
                stack.enter_context(peers.apart())
        stack.enter_context(launching_nothing())
        if workers < 2 or not hasattr(triton, "AsyncCompileMode") or not hasattr(os, "fork"):
            yield
            return
        children = _Children(workers)
        mode = stack.enter_context(triton.AsyncCompileMode(children))
        try:
            yield
        except BaseException:
            mode.raw_futures.clear()  # they will never be done, and the mode waits for all that it has
            raise
        children.compile()


class _Children(Executor):
    """Takes what is to be compiled, and does all of it at once when it is told."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._jobs: list[tuple[Compile, Future[Any]]] = []

    def submit(self, compile_one: Compile, /, *args: Any, **named: Any) -> Future[Any]:
        """For later."""
        future: Future[Any] = Future()
        self._jobs.append((lambda: compile_one(*args, **named), future))
        return future

    def compile(self) -> None:
        """By children, then here, where little is left to do."""
        jobs = [job for job, _ in self._jobs]
        shares = [share for number in range(self._workers) if (share := jobs[number :: self._workers])]
        if len(jobs) > 1:
            _await([_fork(share) for share in shares], _PATIENCE_S * len(shares[0]))
        for job, future in self._jobs:
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)


def _fork(jobs: Sequence[Compile]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: the child starts none, and ends
        child = os.fork()
    if child:
        return child
    try:
        for job in jobs:
            with suppress(Exception):  # it is tried again where it can be told
                job()
    finally:
        os._exit(0)


def _await(children: Sequence[int], seconds: float) -> None:
    """Until all have ended, or the time is over."""
    until = time.monotonic() + seconds
    left = list(children)
    try:
        while left and time.monotonic() < until:
            left = [child for child in left if os.waitpid(child, os.WNOHANG)[0] == 0]
            time.sleep(0.01)
    finally:
        for child in left:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


__all__ = ["compiled_ahead"]
