"""Which kernels a forward spends its time in: torch's profiler inside the server, asked over HTTP.

A profiled forward is slower than others: its kernels can be compared with each other, its length with nothing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from running import Server, wait_until

KEPT, NEW_TOKENS = 20, 17
"""Kernels of a row, and tokens of each request of a decode that is profiled."""
KEPT_GAPS = 6
"""Pairs of kernels of a row, between which nothing runs."""


def profile(server: Server, prompts: list[list[int]], new_tokens: int, folder: Path, seconds: float) -> dict[str, Any]:
    """Kernels of rank 0 while the prompts are answered once: see `told_by`. Raises OSError where no trace comes.

    And for how long some kernel ran on each of the others whose trace is there as well: without communication that
    is how fast their GPUs are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.trace.json.gz"):
        old.unlink()
    server.ask("/start_profile", {"output_dir": str(folder), "activities": ["GPU"]}, seconds)
    server.generate(prompts, new_tokens, seconds)
    server.ask("/stop_profile", {}, seconds)
    if not wait_until(lambda: bool(list(folder.glob("*TP-0*.trace.json.gz"))), seconds):
        raise OSError(f"no trace of rank 0 came into {folder}")
    (path,) = folder.glob("*TP-0*.trace.json.gz")
    told = told_by(_events(path), new_tokens)
    others = []
    for other in sorted(set(folder.glob("*TP-*.trace.json.gz")) - {path}):
        with suppress(OSError, EOFError, ValueError):  # it is being written
            others.append(told_by(_events(other), new_tokens)["busy_us"])
    return {**told, "busy_us_of_others": others}


def _events(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        found: list[dict[str, Any]] = json.load(file)["traceEvents"]
        return found


def told_by(events: Iterable[dict[str, Any]], forwards: int) -> dict[str, Any]:
    """Of a trace: us per forward by kernel, the longest first; between which two nothing ran, and for how long in all;
    how long some kernel ran, and from first to last."""
    kernels = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    total: dict[str, float] = {}
    for event in kernels:
        name = _short(event["name"])
        total[name] = total.get(name, 0.0) + event["dur"] / forwards
    longest = sorted(total.items(), key=lambda one: -one[1])[:KEPT]
    spans = sorted((event["ts"], event["ts"] + event["dur"], _short(event["name"])) for event in kernels)
    whole = max(end for _, end, _ in spans) - spans[0][0] if spans else 0.0
    gaps = _gaps(spans)
    widest = sorted(gaps.items(), key=lambda one: -one[1])[:KEPT_GAPS]
    return {
        "us": {name: round(us, 1) for name, us in longest},
        "idle": {pair: round(us / forwards, 1) for pair, us in widest},
        "busy_us": round((whole - sum(gaps.values())) / forwards, 1),
        "span_us": round(whole / forwards, 1),
    }


def _gaps(spans: Sequence[tuple[float, float, str]]) -> dict[str, float]:
    """`the kernel that ended last > the next to begin` to the time between, summed over all such pairs."""
    found: dict[str, float] = {}
    until, last = float("inf"), ""
    for begin, end, name in spans:
        if begin > until:
            pair = f"{last} > {name}"
            found[pair] = found.get(pair, 0.0) + begin - until
        if end > until or not last:
            until, last = end, name
    return found


def _short(name: str) -> str:
    """A kernel's name without the types of its template."""
    bare = name.removeprefix("void ").split("<")[0].split("(")[0]
    return bare.rsplit("::", 1)[-1][:48] or name[:48]
