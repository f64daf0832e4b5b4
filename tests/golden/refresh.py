"""Writes the golden strategy file of every deployment preset: `python tests/golden/refresh.py`, then read the diff.

A golden file makes every change of a decision a change that somebody reviews.
"""

from __future__ import annotations

from pathlib import Path

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.strategy.file import dump

GOLDEN = Path(__file__).parent


def planned(deployment: str) -> str:
    """The strategy file that the planner writes for a deployment preset today."""
    return dump(plan_setup(load_setup(deployment)))


def main() -> None:
    names = preset_names("deployments")
    for path in GOLDEN.glob("*.yaml"):
        if path.stem not in names:
            path.unlink()
            print(f"{path.name}: removed, its deployment is gone")
    for name in names:
        path, text = GOLDEN / f"{name}.yaml", planned(name)
        before = path.read_text() if path.exists() else None
        path.write_text(text)
        print(f"{path.name}: {'new' if before is None else 'the same' if before == text else 'changed'}")


if __name__ == "__main__":
    main()
