"""Ranks that stay: spawned once, then asked to run one function after another.

Starting a rank and importing transformers takes seconds, a test on tiny models a fraction of one.
"""

from __future__ import annotations

import gc
import os
import secrets
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

from commplan.runtime.errors import BoundaryError
from commplan.runtime.ranks.spawning import run_ranks

_GRACE_S = 5.0
_LIFETIME_S = 86_400.0  # a world lasts as long as its pytest process; each `run` has a limit of its own
_MOST_GROUPS = 14  # of one executor that is kept, and what tests of single collectives share
COLLECTIVE_TIMEOUT_S = 180.0  # other tests share the cores


class WorldError(AssertionError):
    """A function failed on some rank; the text holds each rank's own."""


class RankWorld:
    """`size` processes joined over gloo. `run` calls a function on all of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        key = secrets.token_bytes(16)
        with Listener(("127.0.0.1", 0), backlog=size, authkey=key) as listener:
            self._thread = threading.Thread(target=self._spawn, args=(listener.address, key), daemon=True)
            self._thread.start()
            joined = [listener.accept() for _ in range(size)]
        by_rank: dict[int | str, Connection] = {connection.recv(): connection for connection in joined}
        if set(by_rank) != set(range(size)):
            raise WorldError("; ".join(text for text in by_rank if isinstance(text, str)))
        self._ranks = [by_rank[rank] for rank in range(size)]
        self.broken = False

    def _spawn(self, address: Any, key: bytes) -> None:
        try:
            run_ranks(_serve, self.size, address, key, timeout_s=_LIFETIME_S)
        except BoundaryError as error:
            self._tell_failed_start(address, key, str(error))

    def _tell_failed_start(self, address: Any, key: bytes, text: str) -> None:
        """Whoever still waits for ranks to join hears why they never will."""
        for _ in range(self.size):
            try:
                with Client(address, authkey=key) as connection:
                    connection.send(text)
            except OSError:
                return  # all had joined: nobody waits

    def run(self, function: Callable[..., Any], *args: Any, timeout_s: float = 600.0) -> list[Any]:
        """What `function(*args)` returns on each rank; raises WorldError if it fails on any, and ends the world."""
        for connection in self._ranks:
            connection.send((function, args))
        results: dict[int, Any] = {}
        failures: dict[int, str] = {}
        while len(results) + len(failures) < self.size:
            silent = [r for r in range(self.size) if r not in results and r not in failures]
            ready = wait([self._ranks[r] for r in silent], timeout=_GRACE_S if failures else timeout_s)
            if not ready:
                failures |= dict.fromkeys(silent, "no answer")
            for rank in [r for r in silent if self._ranks[r] in ready]:
                try:
                    kind, value = self._ranks[rank].recv()
                except (EOFError, ConnectionError):
                    kind, value = "failed", "the process is gone"
                (results if kind == "done" else failures)[rank] = value
        if failures:
            self.close()
            raise WorldError("\n".join(f"rank {rank}: {text}" for rank, text in sorted(failures.items())))
        return [results[rank] for rank in range(self.size)]

    def close(self) -> None:
        """End the ranks."""
        self.broken = True
        for connection in self._ranks:
            connection.close()
        self._thread.join()


def _let_go() -> None:
    """What keeps groups, and so their threads, that are closed: an executor and its model hold each other, and DTensor
    remembers the meshes of models that are gone."""
    from torch.distributed.tensor.debug import _clear_sharding_prop_cache

    _clear_sharding_prop_cache()
    gc.collect()


def _check_groups() -> None:
    """Each group over gloo has threads that poll: a few dozen left behind slow every test after them down."""
    from torch.distributed.distributed_c10d import _world

    if len(_world.pg_map) > _MOST_GROUPS:
        raise AssertionError(f"{len(_world.pg_map)} process groups are open: who made them must close them")


def _serve(address: Any, key: bytes) -> None:
    """A rank's life: run what comes, until the other side hangs up."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist
    import transformers

    from commplan.runtime.ranks.rendezvous import store_of_environment

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    store, rank, size = store_of_environment(COLLECTIVE_TIMEOUT_S)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_S)
    )
    gc.collect()
    gc.freeze()  # what was imported stays: looked through at every collection, it makes each take half a second
    with Client(address, authkey=key) as connection:
        connection.send(int(os.environ["RANK"]))
        while True:
            try:
                function, args = connection.recv()
                result = function(*args)
                _let_go()
                _check_groups()
                connection.send(("done", result))
            except (EOFError, ConnectionError):
                return
            except Exception:
                connection.send(("failed", traceback.format_exc(limit=-6)))
