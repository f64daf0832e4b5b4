"""Spawning ranks on this host: bound to loopback, watched, and ended together.

`run_ranks(function, nproc, *args)` calls `function(*args)` on every rank with torch.distributed's environment set, and
returns what each returned. If one rank fails, the others get a grace period to notice by themselves, then are ended.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from .errors import BoundaryError

_GRACE_S = 15.0


class RankError(BoundaryError):
    """A spawned rank failed; the message is the rank's own."""

    exit_code = 4


def run_ranks(function: Callable[..., Any], nproc: int, *args: Any, timeout_s: float = 600.0) -> list[Any]:
    """Results by rank. Raises RankError with the first rank's message if any fails or the time is up."""
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    pipes, ranks = [], []
    for rank in range(nproc):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_rank_main, args=(function, rank, nproc, port, sending, args), daemon=True)
        process.start()
        sending.close()
        pipes.append(receiving)
        ranks.append(process)
    try:
        return _collect(pipes, ranks, time.monotonic() + timeout_s)
    finally:
        _end(ranks)


def _collect(pipes: list[Connection], ranks: list[BaseProcess], deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    failures: dict[int, str] = {}
    open_pipes = dict(enumerate(pipes))
    while open_pipes:
        if failures:
            deadline = min(deadline, time.monotonic() + _GRACE_S)
        ready = wait(list(open_pipes.values()), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            for rank in open_pipes:
                failures.setdefault(rank, "did not end in time")
            break
        for rank in [r for r, pipe in open_pipes.items() if pipe in ready]:
            try:
                kind, value = open_pipes[rank].recv()
            except EOFError:
                ranks[rank].join(1.0)
                kind, value = "failed", f"ended without a word (exit code {ranks[rank].exitcode})"
            del open_pipes[rank]
            if kind == "done":
                results[rank] = value
            else:
                failures[rank] = value
    if failures:
        lines = [f"rank {rank}: {message}" for rank, message in sorted(failures.items())]
        raise RankError("\n  ".join(["", *lines]), where=f"{len(failures)} of {len(ranks)} ranks")
    return [results[rank] for rank in range(len(ranks))]


def _end(ranks: list[BaseProcess]) -> None:
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
    try:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // nproc))
        pipe.send(("done", function(*args)))
    except BaseException as error:
        expected = type(error).__module__.startswith("commplan")
        pipe.send(("failed", str(error) if expected else traceback.format_exc(limit=-4)))
    finally:
        pipe.close()
        _leave()


def _leave() -> None:
    """Leave without waiting for ranks that may be gone."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
