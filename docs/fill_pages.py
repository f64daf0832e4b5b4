"""Fills docs/own-tables.md and docs/sla.md with what their commands really print: blocks that start with `$ commplan`.

Commands run in a folder of published outputs, tests/planner/calibration/outputs.

python docs/fill_pages.py            # rewrites the outputs
python docs/fill_pages.py --check    # exits 1 if one differs
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PAGES = tuple(Path(__file__).parent / name for name in ("own-tables.md", "sla.md"))
OUTPUTS = Path(__file__).parent.parent / "tests" / "planner" / "calibration" / "outputs"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def filled(text: str) -> str:
    """A page with the output of each of its commands, in order and in one folder."""
    with tempfile.TemporaryDirectory() as folder:
        for path in OUTPUTS.glob("*.txt"):
            shutil.copy(path, folder)
        return BLOCK.sub(lambda match: f"```console\n{_block(match[1], folder)}```", text)


def _block(block: str, folder: str) -> str:
    lines = block.replace("\\\n", "\\\0").splitlines()  # a command may go on over lines
    commands = [line.replace("\\\0", "\\\n") for line in lines if line.startswith("$ ")]
    return "".join(f"{command}\n{_printed(command, folder)}" for command in commands)


def _printed(command: str, folder: str) -> str:
    arguments = shlex.split(command.removeprefix("$ ").replace("\\\n", " "))
    if arguments[0] == "cat":
        return (Path(folder) / arguments[1]).read_text(encoding="utf-8")
    run = [sys.executable, "-m", "commplan.planner.cli", *arguments[1:]]
    done = subprocess.run(run, capture_output=True, text=True, cwd=folder, check=False)
    return done.stdout or done.stderr


def main() -> None:
    """Fill or check the pages beside this file."""
    wrong = False
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        wrong |= new != text
        if "--check" not in sys.argv:
            path.write_text(new, encoding="utf-8")
    sys.exit("--check" in sys.argv and wrong)


if __name__ == "__main__":
    main()
