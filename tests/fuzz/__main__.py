"""Runs many cases over worker processes and says what fell short; or one case again, by its seed.

python -m tests.fuzz                      10,000 cases on two processes
python -m tests.fuzz --cases 500 --first 40000
python -m tests.fuzz --seed 1234          one case, with everything it said
python -m tests.fuzz --seed 1234 --keep build/case    and its files
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .cases import run_case
from .corpus import Corpus
from .workers import Workers, work


def main() -> int:
    """Exit code 1 where a case fell short."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Spoil input files and see what happens.")
    parser.add_argument("--cases", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: 2)")
    parser.add_argument("--seed", type=int, help="run the case of this seed alone")
    parser.add_argument("--keep", type=Path, help="with --seed: a folder for its files")
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    _quiet()
    if given.worker is not None:
        work(*given.worker)
        return 0
    if given.seed is not None:
        return _one(given.seed, given.keep)
    return Workers(given.first, given.cases, given.jobs).run()


def _one(seed: int, keep: Path | None) -> int:
    with tempfile.TemporaryDirectory(prefix="commplan-fuzz-") as folder:
        outcome = run_case(seed, Corpus(Path(folder)), keep=keep)
    print(outcome)
    print(
        f"  ended with {outcome.code} after {outcome.seconds:.1f} s; {'fell short' if outcome.faults else 'all held'}"
    )
    return 1 if outcome.faults else 0


def _quiet() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


if __name__ == "__main__":
    sys.exit(main())
