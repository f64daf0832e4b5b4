"""`make bench-quality`: what quantised sums cost SmolLM2-135M on three ranks, and whether the budget prevents more.

    python benchmarks/quality/bench.py [--seen 4096] [--fresh 8192] [--formats int8/token int8/64] [--write FILE.md]

1. Three ranks of this machine read a text: every sum plain, then every sum in each format.
2. `commplan sensitivity` on another text: what every format does at every sum.
3. The ranks read the first text under plans within budgets, also within what each format costs everywhere; planned
   for a made-up slow link, on which bytes are all that counts. Predicted beside measured.

All of it lies in build/quality, where the same command goes on from after an interruption. Half an hour on two idle
cores, of which step 2 takes most, by tokens (`--seen`) and formats; a GPU shortens it. `--formats` without any leaves
steps 2 and 3 out.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from formats import FORMATS
from on_ranks import Losses, said
from plans import Plans
from smollm2 import make_checkpoint
from texts import reference_prose

from commplan.planner.descriptions.sensitivity import Sensitivity, read_sensitivity
from commplan.runtime.sensitivity.texts import token_windows

FOLDER = Path("build/quality")
RANKS, WINDOW = 3, 512
BUDGETS = (0.002, 0.005, 0.01)
ON_RANKS = tuple(name for name in FORMATS if name not in ("INT8, groups of 128", "FP8 per token"))
"""Formats that kernels around the library send; the others are sent on GPUs alone."""
_LEAST_COST = 1e-4  # a smaller rise of perplexity is not told from none
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
    """Plans, and what the ranks lose under each; `window` tokens a forward, rows of `width`."""

    def __init__(self, plans: Plans, losses: Losses, window: int, width: int) -> None:
        self.plans, self.losses, self.window, self.width = plans, losses, window, width

    def uniform(self, names: list[str]) -> dict[str, Path]:
        """Every sum plain, then every sum in each format, read by the ranks."""
        found = {"plain": self.plans.exact()} | {name: self.plans.everywhere(name) for name in names}
        self.losses.read_under(list(found.values()), RANKS)
        return found

    def within(self, uniform: dict[str, Path], sensitivity: Path, known: Sensitivity) -> tuple[list[Row], list[Row]]:
        """Plans within round budgets, and within what each format costs everywhere, as measured."""
        costs = {name: self.losses.rise(plan) for name, plan in uniform.items() if name != "plain"}
        asked = [(f"{budget:.2%}", budget) for budget in BUDGETS]
        asked += [(name, round(cost, 6)) for name, cost in costs.items() if cost > _LEAST_COST]
        plans = [self.plans.within(budget, sensitivity, known) for _, budget in asked]
        self.losses.read_under(plans, RANKS)
        rows = [self.row(name, plan, known, budget) for (name, budget), plan in zip(asked, plans, strict=True)]
        return rows[: len(BUDGETS)], rows[len(BUDGETS) :]

    def row(self, name: str, plan: Path, known: Sensitivity | None, budget: float | None = None) -> Row:
        """A plan that was read, with its figures."""
        return Row(
            name,
            budget,
            None if known is None else self.plans.predicted(plan, self.window, known),
            self.losses.rise(plan),
            self.plans.bytes_a_value(plan, self.window, self.width),
            self.plans.kept_exact(plan, self.window),
        )


def page(about: str, uniform: list[Row], budgets: list[Row], equal: list[Row]) -> str:
    """The figures as tables; those of plans where there are any."""
    lines = [about, "", "| every sum in | bytes a value | predicted | measured |", "|---|---:|---:|---:|"]
    lines += [f"| {r.name} | {r.bytes_a_value:.3f} | {_share(r.predicted)} | {_share(r.measured)} |" for r in uniform]
    if not budgets:
        return "\n".join(lines) + "\n"
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
    windows, digest = token_windows(str(checkpoint), str(fresh), min(window, given.fresh), given.fresh)
    losses = Losses(folder / f"losses-{digest}.json", checkpoint, windows)
    bench = Bench(Plans(folder, checkpoint, RANKS), losses, len(windows[0]), config["hidden_size"])
    uniform = bench.uniform(given.everywhere)
    about = f"{RANKS} ranks, {losses.tokens} tokens, perplexity {math.exp(losses.exact):.4f} in one process"
    if not given.formats:
        return page(about, [bench.row(name, plan, None) for name, plan in uniform.items()], [], [])
    sensitivity = effects(checkpoint, seen, given.seen, given.formats, min(window, given.seen))
    known = read_sensitivity(sensitivity, config["num_hidden_layers"])
    budgets, equal = bench.within(uniform, sensitivity, known)
    about += f"; effects on {given.seen} other tokens"
    return page(about, [bench.row(name, plan, known) for name, plan in uniform.items()], budgets, equal)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seen", type=int, default=4096, help="tokens on which effects are measured")
    parser.add_argument("--fresh", type=int, default=8192, help="tokens on which everything else is")
    parser.add_argument(
        "--formats", nargs="*", default=list(MEASURED), help="whose effects are measured; none: no plans by them"
    )
    parser.add_argument(
        "--everywhere", nargs="+", choices=ON_RANKS, default=list(ON_RANKS), help="formats to read under"
    )
    parser.add_argument("--checkpoint", type=Path, help="another one, as `commplan rotate` writes of SmolLM2")
    parser.add_argument("--write", type=Path, help="page to write")
    return parser.parse_args(arguments)


def main() -> None:
    given = options()
    checkpoint = given.checkpoint or make_checkpoint(FOLDER / "smollm2")
    folder = FOLDER / f"of-{checkpoint.name}"
    folder.mkdir(parents=True, exist_ok=True)
    text = measured(checkpoint, reference_prose(), folder, given)
    print(text)
    if given.write is not None:
        given.write.write_text(text)


if __name__ == "__main__":
    main()
