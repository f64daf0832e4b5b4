"""Our collectives beside their rivals: what was measured, what of the aims is met, and the tables of it.

Imports nothing heavy: it reads rows that `collectives.py` has written.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from families import BEST, EVERYWHERE, FAMILIES, HOST_AIM_NORM_US, HOST_AIM_US, SETTINGS, Family, names


class Rows:
    """What was measured: medians over processes."""

    def __init__(self, lines: Iterable[dict]) -> None:
        self.lines = list(lines)
        self._us: dict[tuple[int, str, str, int], list[float]] = {}
        self._host: dict[str, list[float]] = {}
        for line in self.lines:
            if line["what"] == "us":
                key = line["hidden"], line["setting"], line["case"], line["tokens"]
                self._us.setdefault(key, []).append(line["us"])
            elif line["what"] == "host":
                self._host.setdefault(line["case"], []).append(line["us"])

    @classmethod
    def read(cls, path: Path) -> Rows:
        """Those of a file; of none where there is no file. A line cut off in the middle is left out."""
        lines = []
        for text in path.read_text().splitlines() if path.exists() else ():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                print(f"a line of {path} is cut off and left out")
        return cls(lines)

    def done(self, process: int, hidden: int) -> set[int]:
        """Token counts that a process has finished."""
        return {
            line["tokens"]
            for line in self.lines
            if line["what"] == "done" and (line["process"], line["hidden"]) == (process, hidden)
        }

    def us(self, hidden: int, setting: str, case: str, tokens: int) -> float | None:
        """The median, or None where it was not measured."""
        found = self._us.get((hidden, setting, case, tokens))
        return statistics.median(found) if found else None

    def others(self, hidden: int, setting: str) -> list[str]:
        """Cases that stand against nothing: ours, tuned otherwise."""
        return sorted({key[2] for key in self._us if key[:2] == (hidden, setting)} - set(names()))

    def processes(self, hidden: int) -> int:
        """How many have measured something at a width."""
        return len({line["process"] for line in self.lines if line["what"] == "done" and line["hidden"] == hidden})

    def host_us(self) -> dict[str, float]:
        """Host time of an eager call by case."""
        return {case: statistics.median(found) for case, found in self._host.items()}

    def ranks(self) -> int:
        """On how many it was measured; of a file of several machines, on the most."""
        found = [int(line["machine"].partition(" ")[0]) for line in self.lines if line["what"] == "machine"]
        return max(found, default=2)

    def hiddens(self) -> list[int]:
        """Widths that were measured."""
        return sorted({key[0] for key in self._us})

    def tokens(self, hidden: int, setting: str) -> list[int]:
        """Token counts that were measured."""
        return sorted({key[3] for key in self._us if key[:2] == (hidden, setting)})


class Point(NamedTuple):
    """A family at a token count: our quickest, and how much slower the best rival and NCCL are."""

    tokens: int
    us: float
    rival: str
    rival_ratio: float | None
    nccl_ratio: float | None


def points(rows: Rows, family: Family, hidden: int, setting: str) -> list[Point]:
    """Of one family, where ours were measured. The best rival is whoever was quickest there, NCCL too."""
    found = []
    for tokens in rows.tokens(hidden, setting):
        mine = [us for name in family.ours if (us := rows.us(hidden, setting, name, tokens)) is not None]
        if not mine:
            continue
        others = {n: us for n in family.rivals if (us := rows.us(hidden, setting, n, tokens)) is not None}
        nccl = rows.us(hidden, setting, family.nccl, tokens)
        if nccl is not None and not family.name.startswith("8 bits"):
            others[family.nccl] = nccl
        best = min(others, key=others.__getitem__, default="")
        found.append(
            Point(
                tokens, min(mine), best, others[best] / min(mine) if best else None, nccl / min(mine) if nccl else None
            )
        )
    return found


def verdicts(family: Family, setting: str, found: list[Point], ranks: int) -> list[str]:
    """What is aimed at, and whether it is met."""
    if ranks > 2:
        return _verdicts_of_more(family, found)
    said = []
    for first, last, aim in family.least:
        inside = [p for p in found if first <= p.tokens <= last and p.rival_ratio is not None]
        if inside:
            worst = min(inside, key=lambda p: p.rival_ratio or 0.0)
            said.append(_verdict(f"{_range(first, last)}: each", aim, worst.rival_ratio or 0.0, f" at {worst.tokens}"))
    for first, last, where, aim in family.mean:
        ratios = [p.rival_ratio for p in found if first <= p.tokens <= last and p.rival_ratio is not None]
        if ratios and where == setting:
            said.append(_verdict(f"{_range(first, last)}: in the mean", aim, statistics.mean(ratios), ""))
    return said


def _verdicts_of_more(family: Family, found: list[Point]) -> list[str]:
    said = []
    for first, last, against, aim in family.four:
        inside = [p for p in found if first <= p.tokens <= last]
        ratios = [(p.rival_ratio if against == BEST else p.nccl_ratio, p.tokens) for p in inside]
        known = [(ratio, tokens) for ratio, tokens in ratios if ratio is not None]
        if known:
            worst, tokens = min(known)
            said.append(_verdict(f"{_range(first, last)}: against {against} each", aim, worst, f" at {tokens}"))
    return said


def _verdict(what: str, aim: float, got: float, where: str) -> str:
    return f"{what} at least {aim:.2f} x: {got:.2f}{where}, " + ("met" if got >= aim else "**missed**")


def _range(first: int, last: int) -> str:
    if first == last:
        return f"{first} tokens"
    return f"from {first} tokens" if last == EVERYWHERE else f"{first} to {last} tokens"


def show(rows: Rows) -> None:
    """All tables: best rival first, NCCL second."""
    _show_machine(rows)
    for hidden in rows.hiddens():
        for setting in SETTINGS:
            if rows.tokens(hidden, setting):
                _show_times(rows, hidden, setting)
                for family in FAMILIES:
                    _show_family(rows, family, hidden, setting)
    _show_host(rows)
    wrong = {(w["case"], w["hidden"], w["tokens"]) for w in rows.lines if w["what"] == "wrong"}
    for case, hidden, tokens in sorted(wrong):
        print(f"WRONG SUMS, not timed: {case} at {tokens} x {hidden}")


def show_ratios(rows: Rows) -> None:
    """One table of the best rival's time over ours, a line for each family, width and setting; then what was missed."""
    _show_machine(rows)
    counts = sorted({t for hidden in rows.hiddens() for setting in SETTINGS for t in rows.tokens(hidden, setting)})
    print("\n| best rival / ours | " + " | ".join(map(str, counts)) + " |\n|---|" + "---:|" * len(counts))
    missed = []
    for family in FAMILIES:
        for setting in SETTINGS:
            for hidden in rows.hiddens():
                found = points(rows, family, hidden, setting)
                ratios = {p.tokens: f"{p.rival_ratio:.2f}" for p in found if p.rival_ratio is not None}
                if ratios:
                    title = f"{hidden}, {family.name}, {setting}"
                    print(f"| {title} | " + " | ".join(ratios.get(count, "") for count in counts) + " |")
                    missed += [f"{title}: {v}" for v in verdicts(family, setting, found, rows.ranks()) if "missed" in v]
    print("\nmissed: " + ("; ".join(missed) if missed else "nothing"))


def _show_machine(rows: Rows) -> None:
    for machine in dict.fromkeys(line["machine"] for line in rows.lines if line["what"] == "machine"):
        print(machine)


def _show_times(rows: Rows, hidden: int, setting: str) -> None:
    tokens = rows.tokens(hidden, setting)
    print(f"\nhidden {hidden}, {setting}, us; median of {rows.processes(hidden)} processes")
    print("| case | " + " | ".join(map(str, tokens)) + " |\n|---|" + "---:|" * len(tokens))
    for name in (*names(), *rows.others(hidden, setting)):
        times = [rows.us(hidden, setting, name, t) for t in tokens]
        if any(times):
            print(f"| {name} | " + " | ".join("" if us is None else f"{us:.1f}" for us in times) + " |")


def _show_family(rows: Rows, family: Family, hidden: int, setting: str) -> None:
    found = points(rows, family, hidden, setting)
    if not found:
        return
    print(f"\n{family.name}, hidden {hidden}, {setting}: the other's time over ours")
    print("| tokens | us | best rival | x | NCCL x |\n|---:|---:|---|---:|---:|")
    for p in found:
        ratios = ("" if r is None else f"{r:.2f}" for r in (p.rival_ratio, p.nccl_ratio))
        print(f"| {p.tokens} | {p.us:.1f} | {p.rival} | " + " | ".join(ratios) + " |")
    for verdict in verdicts(family, setting, found, rows.ranks()):
        print(f"aim: {verdict}")


def _show_host(rows: Rows) -> None:
    host = rows.host_us()
    if host:
        print("\n| eager call | host us | aim |\n|---|---:|---|")
    for name in [n for n in names() if n in host]:
        aim = HOST_AIM_NORM_US if "norm" in name else HOST_AIM_US
        is_one_call = name.startswith("ours") and not name.endswith(("+ gather", "trivially"))
        verdict = ("met" if host[name] <= aim else "**missed**") if is_one_call else ""
        print(f"| {name} | {host[name]:.1f} | {f'{aim:.0f}: {verdict}' if verdict else ''} |")
