"""Where ranks meet before they know that they run the same plan.

Which process groups are made follows from the plan, so the ranks compare what they were given first: over the
key-value store that torchrun (or `launch`) gives them, or over a gloo group where the caller has made the default
group already. Neither depends on the plan, its backend or its parallelism.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, Queue
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ..errors import BoundaryError
from .agreement import Exchange, as_json, exchange_over, first_line, from_json
from .groups import Group, control_group

LISTEN_VARIABLE = "COMMPLAN_LISTEN"
_BACKLOG = 2048
_SLACK_S = 3.0  # beyond torch's own timeout
# A thread of gloo's that gives back the tensor of the last sum only once the interpreter is torn down ends the process
# by SIGABRT, after all its work was done. It needs microseconds: main leaves it the core and the interpreter.
_LAST_RELEASE_S = 0.05
_LINGER_S = 10.0  # rank 0 serves the store: it stays until the others have read it


@dataclass(frozen=True)
class Rendezvous:
    """`size` ranks that can exchange values, whatever they will run. `control` where a default group exists."""

    size: int
    exchange: Exchange
    store: Any = None
    control: Group | None = None

    def join(self, backend: str, device: torch.device, timeout_s: float) -> None:
        """Make the default process group, unless the caller has."""
        if self.store is None:
            return
        options: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
        dist.init_process_group(
            backend,
            store=PrefixStore("default", self.store),
            rank=int(os.environ["RANK"]),
            world_size=self.size,
            timeout=timedelta(seconds=timeout_s),
            **options,
        )
        if backend == "gloo":
            atexit.register(time.sleep, _LAST_RELEASE_S)


def meet(timeout_s: float) -> Rendezvous:
    """The ranks of this start: those of the default group, else those of torchrun's environment, else one alone."""
    if dist.is_initialized():
        control = control_group(timeout_s)
        return Rendezvous(control.size, exchange_over(control), control=control)
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size == 1:
        return Rendezvous(1, lambda mine: [mine])
    store, rank, size = _within(timeout_s, lambda: store_of_environment(timeout_s))
    return Rendezvous(size, _exchange_through(store, rank, size, timeout_s), store)


def _within(timeout_s: float, connect: Callable[[], Any]) -> Any:
    """What `connect` returns. torch's own timeout ends with the connection: it waits for ever on what never answers."""
    ended: Queue[tuple[Any, Exception | None]] = Queue()

    def run() -> None:
        try:
            ended.put((connect(), None))
        except Exception as error:
            ended.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        found, error = ended.get(timeout=timeout_s + _SLACK_S)
    except Empty:
        reason = f"what listens on {_address()} does not answer as a rank of this start would; take another MASTER_PORT"
        raise BoundaryError(reason, where="start") from None
    if error is not None:
        raise error
    return found


def _address() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def store_of_environment(timeout_s: float) -> tuple[Any, int, int]:
    """The key-value store that the environment names, this rank and the number of ranks.

    Where rank 0 serves it, it listens on the address that MASTER_ADDR names and on no other interface; COMMPLAN_LISTEN
    names another one, as 0.0.0.0 where MASTER_ADDR is not an address of this host.
    """
    given = os.environ
    try:
        if given.get("RANK") == "0" and "MASTER_ADDR" in given and not given.get("TORCHELASTIC_USE_AGENT_STORE"):
            return _served_store(timeout_s), 0, int(given["WORLD_SIZE"])
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        problem = f"not all of {given.get('WORLD_SIZE')} ranks came: {first_line(error)}"
        raise BoundaryError(problem, where="start") from error
    return store, rank, size


def _served_store(timeout_s: float) -> Any:
    """The store that rank 0 serves. Left to itself torch listens on every interface, and whoever comes is let in."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not 0 < port < 2**16:
        raise ValueError(f"MASTER_PORT is {port}, and ports are 1 to 65535")
    listen = os.environ.get(LISTEN_VARIABLE) or host
    with _listening(listen, port) as listening:
        handle = listening.detach()  # the store closes it
    return TCPStore(
        host,
        port,
        int(os.environ["WORLD_SIZE"]),
        is_master=True,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=handle,
    )


def _listening(listen: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        how = f"rank 0 cannot listen on {listen}, port {port}: {error.strerror}; {LISTEN_VARIABLE} names an address"
        raise OSError(f"{how} of this host") from None
    return listening


def _exchange_through(store: Any, rank: int, size: int, timeout_s: float) -> Exchange:
    """An exchange for one use."""
    notes = PrefixStore("commplan", store)
    others = [other for other in range(size) if other != rank]

    def exchange(mine: Any) -> list[Any]:
        me = f"process {os.getpid()} of {socket.gethostname()}"
        found = notes.compare_set(f"came/{rank}", "", me).decode()
        if found != me:
            reason = (
                f"{found} is rank {rank} already: two starts share {_address()}; give each a MASTER_PORT of its own"
            )
            raise BoundaryError(reason, where="start")
        notes.set(f"note/{rank}", as_json(mine).decode())
        try:
            notes.wait([f"note/{other}" for other in others], timedelta(seconds=timeout_s))
            everyone = [from_json(notes.get(f"note/{other}"), other) for other in range(size)]
        except RuntimeError as error:
            raise BoundaryError(f"another rank is gone or stuck: {error}", where="start") from error
        notes.set(f"read/{rank}", "")
        if rank == 0:
            _wait_for_readers(notes, others)
        return everyone

    return exchange


def _wait_for_readers(notes: Any, others: list[int]) -> None:
    with suppress(RuntimeError):  # a rank that died meanwhile is noticed by whatever comes next
        notes.wait([f"read/{other}" for other in others], timedelta(seconds=_LINGER_S))
