"""Fills README.md and the pages of docs/ with what their commands and scripts really print.

A `console` block that starts with `$ commplan` is a session. A `python` block of docs/library.md is run, and what it
prints goes into the `text` block behind it. In docs/accuracy.md it fills what stands between `<!-- commplan ... -->`
and `<!-- end -->`. First of all it writes configs/accuracy/summary.yaml, which plans read.

python docs/fill_readme.py            # rewrites the outputs
python docs/fill_readme.py --check    # exits 1 if one differs
python -m tests.test_own_machine_page # docs/own-machine.md
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from commplan.planner.cli import main as commplan

DOCS = Path(__file__).parent
ROOT = DOCS.parent
README, ACCURACY, LIBRARY = ROOT / "README.md", DOCS / "accuracy.md", DOCS / "library.md"
OWN_MACHINE = DOCS / "own-machine.md"  # has a test of its own, which fills it too
PAGES = [README, *sorted(page for page in DOCS.glob("*.md") if page not in (ACCURACY, LIBRARY, OWN_MACHINE))]
SUMMARY = ROOT / "configs" / "accuracy" / "summary.yaml"
# What lies in the folder where sessions are typed: a strategy file, and what other tools have printed.
STRATEGY = ROOT / "tests" / "golden" / "deepseek-r1-h20-tp8.yaml"
OUTPUTS = ROOT / "tests" / "planner" / "calibration" / "outputs"

SESSION = re.compile(r"(```console(?: session)?\n)(\$ commplan .*?|\$ cat .*?)```", re.DOTALL)
MADE = re.compile(r"^commplan plan .*$", re.MULTILINE)  # in a shell block, for the sessions behind it
SCRIPT = re.compile(r"```python\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)
TABLE = re.compile(r"<!-- commplan (.*?) -->\n.*?<!-- end -->", re.DOTALL)
# Sessions that need what a planner alone has not: they are filled in by hand, from a real run.
BY_HAND = ("commplan check", "commplan run", "commplan launch", "commplan rotate")


@contextlib.contextmanager
def _folder() -> Iterator[None]:
    """An own folder to type commands in."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(STRATEGY, Path(folder) / "strategy.yaml")
        for path in OUTPUTS.glob("*.txt"):
            shutil.copy(path, folder)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)


def printed(command: str) -> str:
    """What a command prints; where that is nothing, what it says on standard error. A pipe behind it is the shell's."""
    command, _, through = command.partition(" | ")
    if through:
        pipe = subprocess.run(
            through, shell=True, input=printed(command), stdout=subprocess.PIPE, text=True, check=True
        )
        return pipe.stdout
    name, *arguments = shlex.split(command.replace("\\\n", " "))
    if name == "cat":
        return Path(arguments[0]).read_text(encoding="utf-8")
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["commplan", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
            commplan()
    finally:
        sys.argv = argv
    return out.getvalue() or err.getvalue()


def _session(block: str) -> str:
    lines = block.replace("\\\n", "\\\0").splitlines()  # a command may go on over lines
    commands = [line[2:].replace("\\\0", "\\\n") for line in lines if line.startswith("$ ")]
    return "".join(f"$ {command}\n{printed(command).rstrip()}\n" for command in commands)


def filled_page(text: str) -> str:
    """A page with every session filled; they are typed in one folder, in order, which has the plans that it makes."""
    with _folder():
        for line in MADE.findall(text) if "```console session" in text else ():
            printed(line)
        return SESSION.sub(lambda m: m[0] if any(c in m[2] for c in BY_HAND) else f"{m[1]}{_session(m[2])}```", text)


def filled_library(text: str) -> str:
    """docs/library.md: its scripts are one program. One that prints nothing has no text behind it."""
    names: dict[str, object] = {}

    def filled(match: re.Match[str]) -> str:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(match[1], str(LIBRARY), "exec"), names)
        shown = said.getvalue()
        return f"```python\n{match[1]}```\n" + (f"\n```text\n{shown}```\n" if shown else "")

    with _folder():
        return SCRIPT.sub(filled, text)


def filled_accuracy(text: str) -> str:
    """docs/accuracy.md with every table filled."""
    with _folder():
        return TABLE.sub(
            lambda match: f"<!-- commplan {match[1]} -->\n{printed(f'commplan {match[1]}').rstrip()}\n<!-- end -->",
            text,
        )


def filled_summary(_: str) -> str:
    """configs/accuracy/summary.yaml anew."""
    return printed("commplan backtest --summary").rstrip("\n") + "\n"


def main() -> None:
    """Fill or check the README, the pages, and the summary that plans read."""
    wrong = False
    pages = [(page, filled_page) for page in PAGES]
    for path, fill in ((SUMMARY, filled_summary), *pages, (LIBRARY, filled_library), (ACCURACY, filled_accuracy)):
        text = path.read_text(encoding="utf-8")
        new = fill(text)
        if new != text:
            wrong = True
            print(path.relative_to(ROOT))
        if "--check" not in sys.argv:
            path.write_text(new, encoding="utf-8")
    sys.exit("--check" in sys.argv and wrong)


if __name__ == "__main__":
    main()
