"""A trial: a new thing, added to a copy of the package by the files that CONTRIBUTING names for its kind, in order."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("planner", "runtime", "configs")
_RUN = """
import json, sys
from tests.planner.cli.commandline import run
results = [run(*arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([[r.code, r.out, r.err] for r in results]))
"""


@dataclass(frozen=True)
class Insert:
    """Text that goes behind a line which stands in a file once; `at` None: at its end."""

    at: str | None
    text: str


@dataclass(frozen=True)
class Trial:
    """A made-up example of one kind.

    kind   as CONTRIBUTING heads the entry
    parts  by path, in its order: the text of a new file, or what is inserted into one that is there
    names  what its `<placeholders>` stand for
    """

    kind: str
    parts: dict[str, str | tuple[Insert, ...]]
    names: dict[str, str] = field(default_factory=dict)

    def told(self) -> list[str]:
        """The files that CONTRIBUTING names for this kind, in order."""
        text = (ROOT / "CONTRIBUTING.md").read_text()
        entry = re.search(rf"^\*\*{self.kind}[.*].*?(?=^\*\*|^## )", text, re.MULTILINE | re.DOTALL)
        assert entry is not None, f"CONTRIBUTING has no entry {self.kind}"
        paths = re.findall(r"^\d+\. (?:\[|`)([^\]`]+)(?:\]|`)", entry[0], re.MULTILINE)
        return [re.sub(r"<(\w+)>", lambda m: self.names[m[1]], path.replace("\\", "")) for path in paths]


def add_to_a_copy(folder: Path, *trials: Trial) -> Path:
    """A folder for PYTHONPATH with the package as it is but for the trials."""
    package = folder / "commplan"
    for part in PACKAGES:
        shutil.copytree(ROOT / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package / "planner" / "library", package, dirs_exist_ok=True)
    for trial in trials:
        for path, part in trial.parts.items():
            if not path.startswith(PACKAGES):
                continue  # a test's
            if isinstance(part, str):
                assert not (package / path).exists()
                (package / path).parent.mkdir(parents=True, exist_ok=True)
                (package / path).write_text(part)
            else:
                _insert(package / path, part)
    return folder


def _insert(path: Path, inserts: tuple[Insert, ...]) -> None:
    text = path.read_text()
    for insert in inserts:
        if insert.at is None:
            text += insert.text
            continue
        assert text.count(insert.at) == 1, f"{path} has changed: the trial no longer finds its place"
        text = text.replace(insert.at, insert.at + insert.text)
    path.write_text(text)


def changed_files(folder: Path) -> list[str]:
    """Files of the copy that the package has not, or has otherwise."""
    copy = folder / "commplan"
    return sorted(
        path.relative_to(copy).as_posix()
        for path in copy.rglob("*")
        if path.is_file()
        and path.parent != copy  # the library, which lies in the planner's folder
        and "__pycache__" not in path.parts
        and not ((ROOT / path.relative_to(copy)).is_file() and filecmp.cmp(path, ROOT / path.relative_to(copy), False))
    )


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python that finds the package in a copy, and the tests where they are."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"},
    )


@dataclass(frozen=True)
class Done:
    """What a command printed and ended with."""

    code: int
    out: str
    err: str


def commands(folder: Path, *given: tuple[object, ...]) -> list[Done]:
    """`commplan ARGUMENTS` of a copy, one after the other in one process."""
    done = python(folder, "-c", _RUN, json.dumps([[str(a) for a in arguments] for arguments in given]))
    assert done.returncode == 0, done.stderr
    return [Done(*result) for result in json.loads(done.stdout)]
