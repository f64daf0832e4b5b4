"""`make bench-quality`: what quantised sums cost SmolLM2-135M on three ranks, and whether the budget prevents more.

    python benchmarks/quality/bench.py [--seen 8] [--fresh 16] [--write docs/measured/quality.md]

1. Every format at every sum, effects, plans among all formats: ranks emulated (`evaluate.py`).
2. Plans under budgets by `commplan plan`, on a made-up slow link where INT8 pays, and `commplan check --perplexity` on
   three real ranks of this machine: predicted beside measured.

Minutes on two idle cores. The checkpoint lies in build/quality, made once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from evaluate import MEASURED, Study, evaluated, print_results
from formats import FORMATS
from smollm2 import make_checkpoint
from texts import reference_prose

from commplan.planner.strategy.file import config_fingerprint
from commplan.runtime.sensitivity.record import sensitivity_text

FOLDER = Path("build/quality")
RANKS, WINDOW = 3, 512
BUDGETS = (0.002, 0.005, 0.01)
SLOW = "hardware.links.intra_node.bandwidth_gb_per_s=0.02"  # in GB/s: no machine, one on which INT8 is worth its passes


def ids_of(checkpoint: Path, text: Path) -> Any:
    """Windows of the text."""
    import torch
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(checkpoint)(text.read_text(), verbose=False).input_ids
    return torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)


def sensitivity_file(study: Study, checkpoint: Path, tokens: int) -> Path:
    """What the study has measured, as `commplan sensitivity` writes it."""
    measured = {
        "model": str(config_fingerprint(json.loads((checkpoint / "config.json").read_text()))),
        "ranks": RANKS,
        "tokens": tokens,
        "window": WINDOW,
        "text": "Python's language reference",
        "perplexity": 15.5,
        "loss": round(study.exact, 6),
        "dtype": "float32",
        "method": "perturbation, one sum at a time, its error with both signs",
        "versions": "as installed",
    }
    ops = tuple(FORMATS[name] for name in MEASURED)
    file = FOLDER / "sensitivity.yaml"
    file.write_text(sensitivity_text(study.effects, len(study.ranks.model.model.layers), ops, measured))
    return file


def commplan(*arguments: object) -> dict[str, Any]:
    """The JSON that a command prints; exit code 4 is an answer too."""
    command = [str(Path(sys.executable).parent / "commplan"), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def on_ranks(checkpoint: Path, sensitivity: Path, text: Path, tokens: int) -> list[dict[str, Any]]:
    """Each budget: the plan, and what three ranks of this machine measure of it on text that it has not seen."""
    found = []
    given = [
        f"model={checkpoint / 'config.json'}",
        f"parallelism.tp={RANKS}",
        SLOW,
        f"numerics.sensitivity={sensitivity}",
    ]
    given += ["numerics.loosest=quantized"]
    for budget in BUDGETS:
        file = FOLDER / f"plan-{budget}.yaml"
        overrides = [part for each in (*given, f"numerics.perplexity_budget={budget}") for part in ("--set", each)]
        commplan("plan", "qwen3-0.6b-cpu-tp2", *overrides, "-o", file)
        asked = ("--perplexity", text, "--max-tokens", WINDOW, "--text-tokens", tokens, "--timeout", 7200)
        told = commplan("check", file, "--model", checkpoint, *asked)["perplexity"]
        found.append(told)
        print(
            f"three ranks, budget {budget:.2%}: {told['predicted']:+.3%} predicted, {told['rise']:+.3%} measured",
            flush=True,
        )
    return found


def page(found: dict[str, Any], ranks: list[dict[str, Any]]) -> str:
    """The figures as a page of docs/measured."""
    lines = [
        "# SmolLM2-135M, three ranks: what quantised sums cost",
        "",
        f"Perplexity of Python's language reference, {found['perplexity']:.3f} exact. Written by `make bench-quality`.",
        "",
        "| every sum in | rise of perplexity | predicted | bytes a value |",
        "|---|---:|---:|---:|",
    ]
    for name, rise in found["formats"].items():
        told = found["uniform"].get(name)
        more = f"{told['predicted']:.3%} | {told['bytes']:.3f}" if told else "- | -"
        lines.append(f"| {name} | {rise:.3%} | {more} |")
    lines += ["", "| budget | predicted | measured | bytes a value | kept exact |", "|---:|---:|---:|---:|---:|"]
    for each in found["budgets"]:
        figures = f"{each['predicted']:.3%} | {each['measured']:.3%} | {each['bytes']:.3f} | {each['kept']}"
        lines.append(f"| {each['budget']:.3%} | {figures} |")
    lines += ["", "| planned and run on three ranks, budget | predicted | measured |", "|---:|---:|---:|"]
    lines += [f"| {told['budget']:.3%} | {told['predicted']:.3%} | {told['rise']:.3%} |" for told in ranks]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seen", type=int, default=8, help=f"windows of {WINDOW} tokens on which effects are measured")
    parser.add_argument("--fresh", type=int, default=16, help="windows on which everything else is")
    parser.add_argument("--write", type=Path, help="page to write")
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    checkpoint, text = make_checkpoint(FOLDER / "smollm2"), FOLDER / "reference.txt"
    text.write_text(reference_prose())
    ids_WS = ids_of(checkpoint, text)
    seen, fresh = ids_WS[-given.seen :], ids_WS[: given.fresh]  # the ranks read the text from its beginning
    study = Study(checkpoint, seen, fresh, RANKS, 4, "cpu")
    found = evaluated(study)
    print_results("SmolLM2-135M", found)
    sensitivity = sensitivity_file(study, checkpoint, seen.numel())
    ranks = on_ranks(checkpoint, sensitivity, text, fresh.numel())
    (FOLDER / "smollm2.json").write_text(json.dumps(found | {"on_ranks": ranks}, indent=1) + "\n")
    if given.write is not None:
        given.write.write_text(page(found, ranks))


if __name__ == "__main__":
    main()
