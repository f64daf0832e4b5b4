"""Many cases over processes: progress, a tally, and every case that fell short at the end.

A worker says which seed it begins before it begins, so that one that dies or is stuck has a name; another goes on.
"""

from __future__ import annotations

import json
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from .cases import WHOLE_EVERY, Outcome, run_case
from .corpus import Corpus

_MOST_BYTES = 6 * 2**30  # of a worker's data
_SILENT_S = 900.0  # a worker that says nothing for so long is ended
_EVERY_S = 15.0


def work(first: int, count: int, step: int) -> None:
    """Be a worker: run seeds first, first + step, ... and tell each on standard output."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    with tempfile.TemporaryDirectory(prefix="commplan-fuzz-") as folder:
        corpus = Corpus(Path(folder))
        for seed in range(first, first + count * step, step):
            _tell({"begins": seed})
            _tell(_told(run_case(seed, corpus)))


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), file=sys.__stdout__, flush=True)


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": outcome.case.seed,
        "kind": outcome.case.kind,
        "whole": outcome.case.whole,
        "code": outcome.code,
        "faults": outcome.faults,
        "text": str(outcome),
        "seconds": outcome.seconds,
    }


class Workers:
    """`jobs` processes, each with every `jobs`-th of the seeds."""

    def __init__(self, first: int, cases: int, jobs: int) -> None:
        self._first, self._cases, self._jobs = first, cases, max(1, min(jobs, cases))
        self._said: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._at: dict[int, int] = {}  # the seed that a worker has begun
        self._left: dict[int, int] = {}
        self._codes: Counter[tuple[str, int]] = Counter()
        self._short: list[dict[str, Any]] = []
        self._whole = self._done = 0
        self._start = self._told = time.monotonic()

    def run(self) -> int:
        """1 where a case fell short, else 0."""
        print(f"{self._cases} cases from seed {self._first}, {self._jobs} at a time; one of {WHOLE_EVERY} is a process")
        for job in range(self._jobs):
            self._left[job] = len(range(job, self._cases, self._jobs))
            self._begin(job, self._first + job)
        try:
            while self._running:
                self._hear()
        finally:
            for process in self._running.values():
                process.kill()
        return self._conclude()

    def _begin(self, job: int, seed: int) -> None:
        if self._left[job] <= 0:
            return
        arguments = [seed, self._left[job], self._jobs]
        command = [sys.executable, "-m", "tests.fuzz", "--worker", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._running[job], self._at[job] = process, seed
        threading.Thread(target=self._listen, args=(job, process), daemon=True).start()

    def _listen(self, job: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._said.put((job, json.loads(line)))
            except ValueError:
                print(line, end="")
        self._said.put((job, None))

    def _hear(self) -> None:
        try:
            job, message = self._said.get(timeout=_SILENT_S)
        except queue.Empty:
            for process in self._running.values():
                process.kill()
            return
        if message is None:
            self._ended(job)
        elif "begins" in message:
            self._at[job] = message["begins"]
        else:
            self._left[job] -= 1
            self._count(message)

    def _ended(self, job: int) -> None:
        """A worker is done, or gone in the middle of a case."""
        code = self._running.pop(job).wait()
        if self._left[job] > 0:
            text = f"seed {self._at[job]}: the process that ran it is gone (exit code {code})"
            self._left[job] -= 1
            self._count(
                {"seed": self._at[job], "kind": "?", "whole": False, "code": code, "faults": [text], "text": text}
            )
            self._begin(job, self._at[job] + self._jobs)

    def _count(self, outcome: dict[str, Any]) -> None:
        self._done += 1
        self._whole += outcome["whole"]
        self._codes[outcome["kind"], outcome["code"]] += 1
        if outcome["faults"]:
            self._short.append(outcome)
            print(f"fell short: {outcome['text']}", flush=True)
        if time.monotonic() - self._told > _EVERY_S:
            self._told = time.monotonic()
            print(
                f"{self._done} of {self._cases} in {self._told - self._start:.0f} s, {len(self._short)} fell short",
                flush=True,
            )

    def _conclude(self) -> int:
        print(
            f"\n{self._done} cases in {time.monotonic() - self._start:.0f} s, {self._whole} of them as whole processes"
        )
        kinds = sorted({kind for kind, _ in self._codes})
        codes = sorted({code for _, code in self._codes})
        print(f"  {'exit code':16}" + "".join(f"{code:>8}" for code in codes))
        for kind in kinds:
            print(f"  {kind:16}" + "".join(f"{self._codes[kind, code]:>8}" for code in codes))
        if not self._short:
            print("No case fell short.")
            return 0
        print(f"{len(self._short)} fell short:")
        for outcome in sorted(self._short, key=lambda o: o["seed"]):
            print(f"  python -m tests.fuzz --seed {outcome['seed']}  # {outcome['faults'][0].splitlines()[-1][:150]}")
        return 1
