"""`make bench-quality`: what quantised sums cost SmolLM2-135M on three ranks, and whether the budget prevents more.

    python benchmarks/quality/bench.py [--seen 4096] [--fresh 8192] [--formats int8/token int8/64] [--write FILE.md]

1. `commplan sensitivity` on one text: what every format does at every sum.
2. Three ranks of this machine read another text: every sum plain, every sum in each format, and plans by
   `commplan plan` within budgets, also of what each format costs everywhere; on a made-up slow link, where bytes are
   all that counts. Predicted beside measured.

All of it lies in build/quality, where the same command goes on from after an interruption. Half an hour on two idle
cores, of which step 1 takes most, by tokens (`--seen`) and formats; a GPU does step 1 in a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from formats import FORMATS, wire_of
from on_ranks import Losses, said
from plans import Plans
from smollm2 import make_checkpoint
from texts import reference_prose

from commplan.planner.descriptions.sensitivity import read_sensitivity
from commplan.runtime.sensitivity.texts import token_windows

FOLDER = Path("build/quality")
RANKS, WINDOW = 3, 512
BUDGETS = (0.002, 0.005, 0.01)
ON_RANKS = tuple(name for name in FORMATS if name not in ("INT8, groups of 128", "FP8 per token"))
"""Formats that kernels around the library send; the others are sent on GPUs alone."""
MEASURED = ("int8/token", "int8/64", "fp8_e4m3/64", "int6/64", "int4_spikes/64")


@dataclass(frozen=True)
class Row:
    """A plan: what it was made within, what its sums were predicted to cost, what they did, what they send."""

    name: str
    budget: float | None
    predicted: float | None
    measured: float
    bytes_a_value: float
    kept_exact: int


def halves(prose: str, folder: Path) -> tuple[Path, Path]:
    """(the text on which effects are measured, the one on which everything else is)."""
    middle = prose.index(" ", len(prose) // 2)
    files = folder / "seen.txt", folder / "fresh.txt"
    for file, part in zip(files, (prose[middle:], prose[:middle]), strict=True):
        file.write_text(part)
    return files


def effects(checkpoint: Path, text: Path, tokens: int, wires: list[str], window: int) -> Path:
    """The sensitivity file, by the command that users have, which goes on from where it was interrupted."""
    known_by = "-".join(wire.replace("/", "_") for wire in wires)
    file = text.parent / f"sensitivity-{tokens}-{known_by}.yaml"
    if not file.is_file():
        command = [sys.executable, "-m", "commplan.planner.cli", "sensitivity", str(checkpoint), "--text", str(text)]
        command += ["--ranks", str(RANKS), "--tokens", str(tokens), "--window", str(window)]
        command += [part for wire in wires for part in ("--wire", wire)]
        said(f"commplan sensitivity: {tokens} tokens, {', '.join(wires)}")
        subprocess.run([*command, "-o", str(file)], check=True, stdout=subprocess.DEVNULL)
    return file


class Bench:
    """Plans, and what the ranks lose under each."""

    def __init__(self, plans: Plans, losses: Losses, window: int, width: int) -> None:
        self.plans, self.losses, self.window, self.width = plans, losses, window, width

    def rows(self, found: list[tuple[str, float | None, Path]]) -> list[Row]:
        """(name, budget, plan): each with its figures."""
        self.losses.read_under([plan for _, _, plan in found], RANKS)
        return [self._row(*each) for each in found]

    def _row(self, name: str, budget: float | None, plan: Path) -> Row:
        effects = {f"{each.wire}/{each.group}" for each in self.plans.known.formats}
        known = budget is not None or name not in FORMATS or wire_of(FORMATS[name]) in effects
        return Row(
            name,
            budget,
            self.plans.predicted(plan, self.window) if known else None,
            self.losses.rise(plan),
            self.plans.bytes_a_value(plan, self.window, self.width),
            self.plans.kept_exact(plan, self.window),
        )

    def uniform(self) -> list[Row]:
        """Every sum plain, then every sum in each format."""
        plans = [("plain", None, self.plans.exact())]
        return self.rows(plans + [(name, None, self.plans.everywhere(name)) for name in ON_RANKS])

    def budgets(self) -> list[Row]:
        """Plans within round budgets."""
        return self.rows([(f"{budget:.2%}", budget, self.plans.within(budget)) for budget in BUDGETS])

    def at_equal_damage(self, uniform: list[Row]) -> list[Row]:
        """Plans within what each format costs everywhere, as measured."""
        costs = [(row.name, row.measured) for row in uniform if row.name != "plain" and row.measured > 1e-4]
        return self.rows([(name, cost, self.plans.within(round(cost, 6))) for name, cost in costs])


def page(uniform: list[Row], budgets: list[Row], equal: list[Row], about: str) -> str:
    """The figures as tables."""
    lines = [about, "", "| every sum in | bytes a value | predicted | measured |", "|---|---:|---:|---:|"]
    lines += [f"| {r.name} | {r.bytes_a_value:.3f} | {_share(r.predicted)} | {_share(r.measured)} |" for r in uniform]
    lines += ["", "| budget | predicted | measured | bytes a value | sums kept exact |", "|---:|---:|---:|---:|---:|"]
    for r in budgets:
        figures = f"{_share(r.predicted)} | {_share(r.measured)} | {r.bytes_a_value:.3f} | {r.kept_exact}"
        lines.append(f"| {_share(r.budget)} | {figures} |")
    lines += ["", "| at what this costs everywhere | bytes a value there | by a plan | fewer by | it measures |"]
    lines.append("|---|---:|---:|---:|---:|")
    of = {row.name: row for row in uniform}
    for r in equal:
        there = of[r.name].bytes_a_value
        fewer = f"{there:.3f} | {r.bytes_a_value:.3f} | {there / r.bytes_a_value:.2f} x"
        lines.append(f"| {r.name}: {_share(r.budget)} | {fewer} | {_share(r.measured)} |")
    return "\n".join(lines) + "\n"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3%}".replace("%", " %")


def measured(checkpoint: Path, prose: str, folder: Path, given: argparse.Namespace, window: int = WINDOW) -> str:
    """All of it, as a page; `given` are the options."""
    config = json.loads((checkpoint / "config.json").read_text())
    seen, fresh = halves(prose, folder)
    sensitivity = effects(checkpoint, seen, given.seen, given.formats, min(window, given.seen))
    windows, digest = token_windows(str(checkpoint), str(fresh), min(window, given.fresh), given.fresh)
    losses = Losses(folder / f"losses-{digest}.json", checkpoint, windows)
    known = read_sensitivity(sensitivity, config["num_hidden_layers"])
    bench = Bench(Plans(folder, checkpoint, RANKS, sensitivity, known), losses, len(windows[0]), config["hidden_size"])
    uniform, budgets = bench.uniform(), bench.budgets()
    about = f"{RANKS} ranks; effects on {given.seen} tokens, all else on {losses.tokens} others"
    return page(uniform, budgets, bench.at_equal_damage(uniform), about)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seen", type=int, default=4096, help="tokens on which effects are measured")
    parser.add_argument("--fresh", type=int, default=8192, help="tokens on which everything else is")
    parser.add_argument("--formats", nargs="+", default=list(MEASURED), help="whose effects are measured")
    parser.add_argument("--write", type=Path, help="page to write")
    return parser.parse_args(arguments)


def main() -> None:
    given = options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = measured(make_checkpoint(FOLDER / "smollm2"), reference_prose(), FOLDER, given)
    print(text)
    if given.write is not None:
        given.write.write_text(text)


if __name__ == "__main__":
    main()
