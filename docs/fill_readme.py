"""Fills README.md with what its commands really print: the blocks that start with `$ commplan`.

python docs/fill_readme.py            # rewrites the outputs
python docs/fill_readme.py --check    # exits 1 if one differs
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
# Blocks that need what a planner alone has not: they are filled in by hand, from a real run.
BY_HAND = ("commplan check", "commplan run")


def filled(block: str, folder: str) -> str:
    """The block with the output of each of its commands."""
    lines = []
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        done = subprocess.run(
            [sys.executable, "-m", "commplan.planner.cli", *line.split()[2:]],
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
        lines += [line, *(done.stdout or done.stderr).rstrip("\n").splitlines()]
    return "\n".join(lines) + "\n"


def filled_readme(text: str) -> str:
    """The README with every block filled."""
    with tempfile.TemporaryDirectory() as folder:
        return BLOCK.sub(
            lambda match: (
                match[0]
                if any(command in match[1] for command in BY_HAND)
                else f"```console\n{filled(match[1], folder)}```"
            ),
            text,
        )


def main() -> None:
    """Fill or check the README beside this folder."""
    text = README.read_text(encoding="utf-8")
    new = filled_readme(text)
    if "--check" in sys.argv:
        sys.exit(new != text)
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
