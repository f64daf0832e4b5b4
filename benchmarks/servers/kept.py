"""Rows of the benchmark, kept in a file as they are measured, so that runs of some minutes add up.

A row is a JSON object on a line. All have the setting (card, shape, layers, links), `start` (the how-manieth start of
its servers), `group` (the servers that stood side by side) and `run` (which start of that group it was).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

SIZES = {"ttft": "tokens", "decode": "batch"}
"""Kinds of rows with times, and the field that says of what size."""


class Setting(NamedTuple):
    """What has to be equal for times to be compared."""

    card: str
    shape: str
    layers: int
    links: str

    def __str__(self) -> str:
        """As a heading."""
        links = "" if self.links == "as they are" else f", {self.links}"
        return f"{self.shape}, {self.layers} layers, {self.card}{links}"


class Key(NamedTuple):
    """What was measured: ttft of so many tokens, or a decode step of so many requests."""

    kind: str
    size: int


class Kept:
    """Rows, and what can be asked of them."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self.rows = list(rows)

    @classmethod
    def read(cls, path: Path) -> Kept:
        """Those of a file; of none where there is no file. A line cut off in the middle is left out."""
        rows = []
        for text in path.read_text().splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(text))
            except json.JSONDecodeError:
                print(f"a line of {path} is cut off and left out")
        return cls(rows)

    def settings(self) -> list[Setting]:
        """All that have times."""
        return sorted({_setting(row) for row in self.rows if row["what"] in SIZES})

    def of(self, setting: Setting) -> Kept:
        """The rows of one setting."""
        return Kept(row for row in self.rows if _setting(row) == setting)

    def tries(self, start: int, group: str) -> int:
        """How often a group was started for the how-manieth time."""
        found = {row["run"] for row in self.rows if (row["start"], row["group"]) == (start, group)}
        return len(found)

    def has(self, start: int, group: str, key: Key) -> bool:
        """True where every server of a group has been measured at this."""
        names = {
            row["configuration"]
            for row in self.rows
            if row["what"] == key.kind
            and (row["start"], row["group"], row[SIZES[key.kind]]) == (start, group, key.size)
        }
        return names >= set(group.split("+"))

    def keys(self, kind: str) -> list[Key]:
        """What of a kind was measured, by size."""
        return [Key(kind, size) for size in sorted({r[SIZES[kind]] for r in self.rows if r["what"] == kind})]

    def by_run(self, key: Key) -> dict[str, dict[str, float]]:
        """Run to configuration to the median of its samples, in ms."""
        samples: dict[str, dict[str, list[float]]] = {}
        for row in self.rows:
            if row["what"] == key.kind and row[SIZES[key.kind]] == key.size:
                samples.setdefault(row["run"], {}).setdefault(row["configuration"], []).extend(row["ms"])
        return {run: {name: statistics.median(ms) for name, ms in of.items()} for run, of in samples.items()}

    def servers(self) -> list[dict[str, Any]]:
        """What was told of each server: did it start, and with which arguments."""
        return [row for row in self.rows if row["what"] == "server"]


def _setting(row: dict[str, Any]) -> Setting:
    return Setting(*(row[name] for name in Setting._fields))


class Writer:
    """Appends rows to a file, each at once. `shared`: the fields that all have."""

    def __init__(self, path: Path, **shared: object) -> None:
        self._path, self._shared = path, shared

    def __call__(self, **row: object) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({**self._shared, **row}) + "\n")
