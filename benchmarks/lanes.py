"""Runs commands that need GPUs beside each other: a lane has GPUs of its own and takes the next command that is left.

    python benchmarks/lanes.py benchmarks/two_ranks.yaml --lane 0,1 --lane 2,3 --minutes 25 --out build/measured

A file of steps is a YAML list, in order of worth; `run` goes to a shell, where {python}, {out} and {minutes} stand for
this Python, the folder of `--out`, and the minutes that are left to the step:

    - {name: kernels, minutes: 5, run: "{python} benchmarks/x.py --rows {out}/rows --minutes {minutes}"}

`minutes` is the most that a step may take (it is ended then), `least` what must be left for it to be begun, `lane` the
one that alone may take it. A step that ends with 0 is done, and is left out by the next call with the same folder;
`again: true` begins it anew as long as it ends with 0 and does not print "all is there". The file is read again before
each step, so that steps can be added while others run. Logs lie in the folder, and what happens is printed as it does.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml

ALL_IS_THERE = "all is there"
GRACE_S = 40
"""Between asking a step to end and ending it: servers that it has started have to go first."""
SHORT_S = 20
"""A step that is to be begun again was not stopped by its time if it took less: it has nothing that it can do."""


class Step(NamedTuple):
    """A command, and how long it may take."""

    name: str
    run: str
    minutes: float = 9.0
    least: float = 1.0
    lane: int | None = None
    again: bool = False


def read_steps(path: Path) -> list[Step]:
    """Of a file. ValueError tells what is wrong with it."""
    found = yaml.safe_load(path.read_text())
    if not isinstance(found, list):
        raise ValueError(f"{path}: a list of steps is expected")
    steps = []
    for number, one in enumerate(found, 1):
        try:
            steps.append(Step(**one))
        except TypeError as error:
            raise ValueError(f"{path}: step {number}: {error}; known are {', '.join(Step._fields)}") from None
    names = [step.name for step in steps]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: named twice: {', '.join(sorted(twice))}")
    return steps


class Lanes:
    """What is taken, what runs, what is done."""

    def __init__(self, steps: Path, lanes: list[str], out: Path, minutes: float) -> None:
        self._file, self.lanes, self._out = steps, lanes, out.absolute()
        self._until = time.monotonic() + 60 * minutes
        self._steps = read_steps(steps)
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._ends = False
        self._out.mkdir(parents=True, exist_ok=True)

    def run(self) -> list[str]:
        """Until nothing is left to take or the time is over; names of steps that are not done."""
        threads = [threading.Thread(target=self._drive, args=(lane,)) for lane in range(len(self.lanes))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._ends = True
            for process in list(self._running.values()):
                _end(process)
            raise
        return [step.name for step in self._steps if not self._mark(step).exists()]

    def _drive(self, lane: int) -> None:
        while step := self._take(lane):
            self._do(lane, step)

    def _take(self, lane: int) -> Step | None:
        with self._lock, suppress(ValueError, yaml.YAMLError):  # a file that is being written is read at the next step
            self._steps = read_steps(self._file)
        with self._lock:
            for step in () if self._ends else self._steps:
                mine = step.lane in (None, lane) and self._left() >= step.least
                if mine and step.name not in self._taken and not self._mark(step).exists():
                    self._taken.add(step.name)
                    return step
        return None

    def _do(self, lane: int, step: Step) -> None:
        minutes = min(step.minutes, self._left())
        self._say(lane, step, f"begins, {minutes:.1f} minutes at most")
        log = self._out / f"{step.name}.log"
        values = {"{python}": sys.executable, "{out}": str(self._out), "{minutes}": f"{minutes - GRACE_S / 60:.2f}"}
        command = step.run
        for word, value in values.items():
            command = command.replace(word, value)
        began = time.monotonic()
        with log.open("ab") as file:
            at = file.tell()
            process = subprocess.Popen(
                command,
                shell=True,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": self.lanes[lane], "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
            self._running[lane] = process
            if self._ends:
                _end(process)
        try:
            code: int | None = process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            code = None
        _end(process)  # what it has left running, too
        told = "its time is over" if code is None else f"ended with {code}"
        took = time.monotonic() - began
        self._say(lane, step, f"{told} after {took:.0f} s")
        whole = not step.again or ALL_IS_THERE in log.read_bytes()[at:].decode(errors="replace")
        if code == 0 and whole:
            self._mark(step).touch()
        elif code == 0 and took > SHORT_S:
            self._taken.discard(step.name)

    def _mark(self, step: Step) -> Path:
        return self._out / f"{step.name}.done"

    def _left(self) -> float:
        return (self._until - time.monotonic()) / 60

    def _say(self, lane: int, step: Step, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} lane {lane} (GPUs {self.lanes[lane]}): {step.name} {what}", flush=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Of a step, the session that it began: asked, then not asked."""
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + patience
        while time.monotonic() < until and _lives(process):
            time.sleep(0.05)


def _lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=Path)
    parser.add_argument("--lane", action="append", required=True, metavar="GPUS", help="as in 0,1; repeatable")
    parser.add_argument("--minutes", type=float, default=30.0, help="end after this time; call again for the rest")
    parser.add_argument("--out", type=Path, default=Path("build/measured"), help="for logs, and what the steps write")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        lanes = Lanes(options.steps, options.lane, options.out, options.minutes)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SystemExit(f"error: {error}") from None
    left = lanes.run()
    print("all is done" if not left else f"not done: {', '.join(left)}")


if __name__ == "__main__":
    main()
