"""Runs on a rank: something goes wrong on one of the ranks, the others must notice and end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime import Executor, load_model
from commplan.runtime.errors import BoundaryError, RefusedError
from commplan.runtime.ranks.spawning import run_ranks

from ..parity import forward, sharded
from ..prompts import requests

FAULTY = 1


def rank() -> int:
    return int(os.environ["RANK"])


def note_pid(folder: str) -> None:
    """Let the parent look whether this process has ended. Renamed: whoever sees the file can read all of it."""
    noted = Path(folder) / f"noting-{rank()}"
    noted.write_text(str(os.getpid()))
    noted.rename(noted.with_name(f"pid-{rank()}"))


def note_pid_and_meet(folder: str) -> None:
    """Go on when every rank is here, its imports done: on busy cores they take longer than timeouts of seconds."""
    note_pid(folder)
    while len(list(Path(folder).glob("pid-*"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.05)


# ---- faults that end the ranks: each runs in processes of its own ------------------------------------------------


def _in_second_mlp(executor: Executor, fault: Callable[[], Any]) -> None:
    """Let a fault happen in the middle of the next forward, on one rank."""
    if rank() == FAULTY:
        executor.model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: fault())


def _forwards(checkpoint: str, file: StrategyFile, folder: str, timeout_s: float, fault: Callable[[], Any]) -> None:
    note_pid_and_meet(folder)
    torch.set_num_threads(1)
    executor = load_model(checkpoint, file, timeout_s=timeout_s)
    forward(executor, "prefill", requests()[:2, :5])
    _in_second_mlp(executor, fault)
    forward(executor, "prefill", requests()[:2, :5])


def killed(checkpoint: str, file: StrategyFile, folder: str) -> None:
    _forwards(checkpoint, file, folder, 60.0, lambda: os.kill(os.getpid(), signal.SIGKILL))


def stuck(checkpoint: str, file: StrategyFile, folder: str, timeout_s: float) -> None:
    _forwards(checkpoint, file, folder, timeout_s, lambda: time.sleep(600))


class OutOfPaperError(Exception):
    """Some error of some model's code."""


def raising(checkpoint: str, file: StrategyFile, folder: str) -> None:
    def fault() -> None:
        raise OutOfPaperError("no paper left")

    _forwards(checkpoint, file, folder, 60.0, fault)


def gone_between_forwards(checkpoint: str, file: StrategyFile, folder: str) -> None:
    note_pid_and_meet(folder)
    executor = load_model(checkpoint, file)
    forward(executor, "prefill", requests()[:2, :5])
    if rank() == FAULTY:
        os.kill(os.getpid(), signal.SIGKILL)
    forward(executor, "prefill", requests()[:2, :5])


def files_of_their_own(checkpoint: str, files: list[StrategyFile | str], folder: str) -> None:
    note_pid_and_meet(folder)
    load_model(checkpoint, files[rank()], timeout_s=30.0)


def starts_on_one_port(checkpoint: str, files: list[StrategyFile], port: int, folder: str, timeout_s: float) -> None:
    """Each pair of ranks is a start of its own, and all starts are told the same port."""
    note_pid_and_meet(folder)
    number, own_rank = divmod(rank(), 2)
    os.environ.update(RANK=str(own_rank), LOCAL_RANK=str(own_rank), WORLD_SIZE="2", MASTER_PORT=str(port))
    load_model(checkpoint, files[number], timeout_s=timeout_s)


def waiting(folder: str) -> None:
    note_pid(folder)
    time.sleep(600)


def parent_of_waiting_ranks(folder: str) -> None:
    run_ranks(waiting, 2, folder)


# ---- disagreements that leave the ranks able to go on ------------------------------------------------------------


def refusals_of(checkpoints: list[str], files: list[StrategyFile], **options: list[Any]) -> str:
    """What a rank says when each is given a checkpoint, a file and options of its own."""
    try:
        own = {name: of_ranks[rank()] for name, of_ranks in options.items()}
        load_model(checkpoints[rank()], files[rank()], timeout_s=20.0, **own)
    except RefusedError as error:
        return str(error)
    return "loaded"


def refusals_with(checkpoint: str, file: StrategyFile, options: dict[str, list[Any]]) -> str:
    return refusals_of([checkpoint] * 2, [file] * 2, **options)


def switched(checkpoint: str, file: StrategyFile, others: list[StrategyFile]) -> str:
    """What a rank says when each switches to a file of its own."""
    executor = sharded(checkpoint, file)
    try:
        executor.switch(others[rank()])
    except RefusedError as error:
        return str(error)
    return "switched"


def disagreement(checkpoint: str, file: StrategyFile, modes: list[str], lengths: list[int]) -> str:
    """What a rank says of a forward for which the ranks bring different modes or lengths; then they agree again."""
    executor = sharded(checkpoint, file)
    try:
        forward(executor, modes[rank()], requests()[:2, : lengths[rank()]])
        said = "went through"
    except BoundaryError as error:
        said = str(error)
    forward(executor, "prefill", requests()[:2, :5])
    return said
