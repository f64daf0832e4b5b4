"""Spawning ranks on this host: bound to loopback, watched, and ended together.

`run_ranks(function, nproc, *args)` calls `function(*args)` on every rank with torch.distributed's environment set, and
returns what each returned. If one rank fails, the others get a grace period to notice by themselves, then are ended.
A rank whose parent is gone ends itself.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from commplan.planner.strategy.file import CommplanError

from ..errors import BoundaryError

_GRACE_S = 15.0


class RankError(BoundaryError):
    """Spawned ranks failed; `by_rank` holds each one's own message."""

    def __init__(self, by_rank: dict[int, str], num_ranks: int) -> None:
        where = f"{len(by_rank)} of {num_ranks} ranks failed"
        super().__init__("; ".join(f"rank {rank}: {text}" for rank, text in sorted(by_rank.items())), where=where)
        self.by_rank = by_rank

    def __str__(self) -> str:
        """A line for each rank; a traceback keeps its lines."""
        texts = [line for rank, text in sorted(self.by_rank.items()) for line in f"rank {rank}: {text}".splitlines()]
        return "\n  ".join([f"{self.field}:", *map(_printable, texts)])


class _Failure(NamedTuple):
    """How a rank ended; `error` as (class, attributes) where it is one for the user."""

    text: str
    error: tuple[type[CommplanError], dict[str, Any]] | None = None


def run_ranks(function: Callable[..., Any], nproc: int, *args: Any, timeout_s: float = 600.0) -> list[Any]:
    """Results by rank. Raises what all ranks raised if that is one and the same refusal, else RankError."""
    context = multiprocessing.get_context("spawn")
    pipes, ranks = [], []
    with _held_port() as port:
        try:
            for rank in range(nproc):
                receiving, sending = context.Pipe(duplex=False)
                own = (function, rank, nproc, port, sending, args)
                process = context.Process(target=_rank_main, args=own, daemon=True)
                process.start()
                sending.close()
                pipes.append(receiving)
                ranks.append(process)
            return _collect(pipes, ranks, time.monotonic() + timeout_s)
        finally:
            _end(ranks)


def _collect(pipes: list[Connection], ranks: Sequence[BaseProcess], deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    failures: dict[int, _Failure] = {}
    open_pipes = dict(enumerate(pipes))
    while open_pipes:
        if failures:
            deadline = min(deadline, time.monotonic() + _GRACE_S)
        ready = wait(list(open_pipes.values()), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            failures |= dict.fromkeys(open_pipes, _Failure("did not end in time"))
            break
        for rank in [r for r, pipe in open_pipes.items() if pipe in ready]:
            kind, value = _received(open_pipes.pop(rank), ranks[rank])
            (results if kind == "done" else failures)[rank] = value
    if failures:
        raise _error_of(failures, len(ranks))
    return [results[rank] for rank in range(len(ranks))]


def _received(pipe: Connection, rank: BaseProcess) -> tuple[str, Any]:
    try:
        kind, value = pipe.recv()
    except EOFError:
        rank.join(1.0)
        return "failed", _Failure(f"ended without a word (exit code {rank.exitcode})")
    return kind, value


def _error_of(failures: dict[int, _Failure], num_ranks: int) -> CommplanError:
    first = failures[min(failures)]
    if first.error is None or len(failures) < num_ranks or any(f.text != first.text for f in failures.values()):
        return RankError({rank: failure.text for rank, failure in failures.items()}, num_ranks)
    kind, attributes = first.error
    error = kind.__new__(kind)
    vars(error).update(attributes)
    return error


def _end(ranks: Sequence[BaseProcess]) -> None:
    for process in ranks:
        process.join(0.2)
    for process in ranks:
        if process.is_alive():
            process.terminate()
    for process in ranks:
        process.join(2.0)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _held_port() -> Iterator[int]:
    """A port for rank 0, which listens on it only seconds later; until then it goes to no other process.

    Of all addresses, as rank 0 listens on all: a port of loopback alone may be that of a connection from another one.
    With SO_REUSEADDR on both sides, Linux lets rank 0 listen beside a socket that is bound but does not listen; BSD and
    macOS might hand connections to that socket: there the port is let go.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


def _rank_main(
    function: Callable[..., Any], rank: int, nproc: int, port: int, pipe: Connection, args: tuple[Any, ...]
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(nproc),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME=os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    )
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // nproc))
        pipe.send(("done", function(*args)))
    except CommplanError as error:
        pipe.send(("failed", _Failure(str(error), (type(error), _plain(vars(error))))))
    except BaseException:
        pipe.send(("failed", _Failure(traceback.format_exc(limit=-4))))
    finally:
        pipe.close()
        _leave()


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """What survives a pipe: values as they are shown."""
    return {name: v if v is None or isinstance(v, str | int | float) else str(v) for name, v in attributes.items()}


def _end_with_parent() -> None:
    """A parent that is killed cannot end its ranks, which would wait for each other until their timeout."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _leave() -> None:
    """Leave without waiting for ranks that may be gone."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
