"""A few calls of every op on all ranks, to be run under compute-sanitizer, which follows both: `make sanitize-gpu`."""

from __future__ import annotations

from commplan.runtime.ranks.spawning import run_ranks

from . import machine
from .ranks import few_of_each

if __name__ == "__main__":
    found = run_ranks(few_of_each, machine.ranks(), 3, timeout_s=570)
    print("every result is right" if all(found) else f"wrong results: {found}")
