"""One case: a copy of right files, one of them spoiled, one command that reads it, and what must hold afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commplan.planner.strategy.errors import MOST_ERRORS
from tests.planner.cli.commandline import Result, run

from .commands import FILES, READERS, SPOILED_OFTEN, Reading
from .corpus import ROOT, Corpus
from .limits import CLOCK_S, CPU_S, TooLongError, at_most
from .mutations import spoil
from .stand_ins import without_machines

WHOLE_EVERY = 20  # one of so many cases is a whole process
_WHOLE_S = 300.0  # of a process, on busy cores
_PROGRESS = ("note: ", "Loading ", "Measuring ", "networkx finds ")


@dataclass(frozen=True)
class Case:
    """What a seed stands for."""

    seed: int
    kind: str
    reading: Reading
    as_json: bool
    whole: bool

    @classmethod
    def of(cls, seed: int, whole: bool | None = None) -> tuple[Case, random.Random]:
        """The case of a seed, and the generator that spoils its file."""
        rng = random.Random(f"commplan fuzz {seed}")
        kind = rng.choices(list(READERS), [SPOILED_OFTEN.get(kind, 1) for kind in READERS])[0]
        readings = READERS[kind]
        if whole is None:
            whole = (seed + seed // WHOLE_EVERY) % WHOLE_EVERY == 0  # odd seeds and even ones: every worker's share
        if whole:  # nothing stands in for devices there
            readings = [r for r in readings if not r.text.startswith(("calibrate", "verify"))]
        chosen = rng.choices(readings, [r.weight for r in readings])[0]
        as_json = rng.random() < 0.5 and not chosen.text.startswith("launch")
        return cls(seed, kind, chosen, as_json, whole), rng

    @property
    def arguments(self) -> list[str]:
        return [*self.reading.arguments, *(["--json"] if self.as_json else [])]


@dataclass(frozen=True)
class Outcome:
    """How a case ended; `faults` is empty where everything held."""

    case: Case
    spoiled: str
    code: int
    faults: list[str]
    seconds: float

    def __str__(self) -> str:
        how = "process" if self.case.whole else "in-process"
        command = " ".join(["commplan", *self.case.arguments])
        head = f"seed {self.case.seed} ({how}): {self.case.kind} ({self.spoiled}): {command}"
        return "\n".join([head, *(f"  {line}" for fault in self.faults for line in fault.splitlines())])


def run_case(seed: int, corpus: Corpus, whole: bool | None = None, keep: Path | None = None) -> Outcome:
    """Run the case of a seed in a folder of its own, which goes away; `keep` names one for its files."""
    case, rng = Case.of(seed, whole)
    return _run(case, rng, corpus, keep, spoil)


def run_unspoiled(kind: str, reading: Reading, corpus: Corpus) -> Outcome:
    """Run a command on files that nothing is wrong with."""
    return _run(Case(0, kind, reading, False, False), random.Random(0), corpus, None, lambda path, rng: "as it was")


def _run(
    case: Case, rng: random.Random, corpus: Corpus, keep: Path | None, change: Callable[[Path, random.Random], str]
) -> Outcome:
    holder = Path(tempfile.mkdtemp(prefix="commplan-fuzz-"))
    folder, scratch = holder / "files", holder / "scratch"
    scratch.mkdir()
    try:
        corpus.copy(case.kind, rng, folder)
        changed = change(folder / FILES[case.kind], rng)
        if keep is not None:
            shutil.copytree(folder, keep, symlinks=True, dirs_exist_ok=True)
        before = snapshot(folder)
        start = time.monotonic()
        result, faults = _ended(case, folder, scratch)
        seconds = time.monotonic() - start
        faults += _of_files(case, result.code, before, snapshot(folder), scratch)
        faults += _of_words(case, result)
        return Outcome(case, changed, result.code, faults, seconds)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _ended(case: Case, folder: Path, scratch: Path) -> tuple[Result, list[str]]:
    """What the command printed and how it ended."""
    if case.whole:
        return _process(case, folder, scratch)
    here, temporary = Path.cwd(), tempfile.tempdir
    os.chdir(folder)
    tempfile.tempdir = str(scratch)
    try:
        with without_machines(), at_most(CPU_S, CLOCK_S):
            return run(*case.arguments), []
    except TooLongError:
        return Result(-1, "", ""), [
            f"took more than {CPU_S} s of a core or {CLOCK_S} s by the clock:\n{traceback.format_exc(limit=-5)}"
        ]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Result(-1, "", ""), [traceback.format_exc(limit=-5)]
    finally:
        tempfile.tempdir = temporary
        os.chdir(here)


def _process(case: Case, folder: Path, scratch: Path) -> tuple[Result, list[str]]:
    command = [sys.executable, "-m", "commplan.planner.cli", *case.arguments]
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT), **quiet}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            out, err = process.communicate(timeout=_WHOLE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Result(-1, "", ""), [f"took more than {_WHOLE_S} s"]
    result = Result(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
    if "Traceback" in result.err:
        return result, [result.err[-3000:]]
    return result, []


# ---- what must hold --------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a hash of what it is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            content = "link to " + os.readlink(path)
        elif stat.S_ISREG(mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = str(stat.S_IFMT(mode))
        found[str(path.relative_to(folder))] = content
    return found


def _of_files(case: Case, code: int, before: dict[str, str], after: dict[str, str], scratch: Path) -> list[str]:
    faults = [f"changed or removed {name}" for name, content in before.items() if after.get(name) != content]
    new = {name for name in set(after) - set(before) if not name.startswith(f"{case.reading.output}/")}
    wanted = {case.reading.output} if code == 0 and case.reading.output else set()
    faults += [f"left {name} behind" for name in sorted(new - wanted)]
    faults += [f"did not write {name}" for name in sorted(wanted - new)]
    faults += [f"left {path.name} in the folder for temporary files" for path in scratch.iterdir()]
    return faults


def _of_words(case: Case, result: Result) -> list[str]:
    if result.code == -1:
        return []
    odd = sorted({c for c in result.out + result.err if c != "\n" and not c.isprintable()})
    faults = [f"printed {odd}: {(result.err or result.out)[:300]!r}"] if odd else []
    refused = result.code in (2, 3)
    verdict = case.reading.text.startswith("validate") and refused and result.out  # its answer is the list of problems
    if result.code == 4 and case.reading.text.startswith("check") and result.out:
        return faults  # its verdict over weights that are no numbers any more
    if result.code not in (0, 2, 3):
        faults.append(f"ended with {result.code}: {result.err[-1500:]}{result.out[-500:]}")
    elif case.as_json:
        faults += _of_json(result, refused and not verdict)
    elif refused and not verdict:
        faults += _of_lines(result)
    return faults


def _of_json(result: Result, refused: bool) -> list[str]:
    try:
        answer = json.loads(result.out, parse_constant=_no_number)
    except ValueError as error:
        return [f"standard output is no JSON object ({error}): {result.out[:300]!r} {result.err[:300]!r}"]
    error = answer.get("error") if refused else None
    if refused and not (isinstance(error, dict) and (error.get("file") or error.get("field"))):
        return [f"the error names neither file nor field: {result.out[:500]}"]
    return []


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _of_lines(result: Result) -> list[str]:
    lines = [line for line in result.err.splitlines() if line and not line.startswith(_PROGRESS)]
    if not lines or not lines[0].startswith("error: ") or len(lines) > MOST_ERRORS:
        return [f"not one error, nor a line for each fault of a file: {result.err[:1500]}"]
    for line in lines:
        if len(line) > 5000:
            return [f"an error line of {len(line)} characters: {line[:300]}"]
        if not re.match(r"(error: )?\S.*?: .", line):
            return [f"the error names neither file nor field: {line}"]
    return [] if not result.out else [f"printed beside its error: {result.out[:300]!r}"]
