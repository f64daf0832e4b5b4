"""Time and peak memory of whole `commplan` processes, start of Python included, with the targets they have to meet.

    python benchmarks/planner/speed.py [--runs 5] [--only SUBSTRING]

The runs of all cases are interleaved, so that a busy moment of the machine falls on all of them. Shown are the median
with the fastest and the slowest run, the median of the processor time (which other processes disturb less), and the
greatest peak memory (resident set) of any run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

COMMPLAN = Path(sys.executable).with_name("commplan")
TARGET_MB = 150
MILLION = 1024 * 1024

# What the two shipped modes lack, as --set arguments; {last} is the greatest token count.
OTHER_MODES = {
    "mixed": "{{tokens: [1, {last}], sequence_tokens: 4096, context_tokens: 4096, decode_fraction: 0.1}}",
    "target_verify": "{{tokens: [1, {last}], context_tokens: 4096, draft_tokens: 4}}",
    "draft_extend": "{{tokens: [1, {last}], context_tokens: 4096, draft_tokens: 4}}",
}


@dataclass
class Case:
    """One command line, its target, and what was measured."""

    name: str
    arguments: list[str]
    target_s: float | None = None
    times_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    ranges: int | None = None  # in the plan, over all modes

    def run(self) -> None:
        start = time.perf_counter()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen([COMMPLAN, *self.arguments], stdin=subprocess.DEVNULL, stdout=output)
            _, status, usage = os.wait4(process.pid, 0)  # as Popen.wait, with the resources of this one process
            self.times_s.append(time.perf_counter() - start)
            self.processor_s.append(usage.ru_utime + usage.ru_stime)
            if status:
                raise SystemExit(f"{self.name}: {' '.join(process.args)[:500]} failed")  # type: ignore[arg-type]
            self.peak_mb = max(self.peak_mb, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)
            if self.arguments[-1] == "--json":
                output.seek(0)
                self.ranges = sum(len(ranges) for ranges in json.load(output)["modes"].values())


# ---- cases ---------------------------------------------------------------------------------------------------------


def cases(folder: Path) -> Iterator[Case]:
    """All cases; `folder` takes the sensitivity files."""
    r1, qwen = "deepseek-r1-h20-tp8", "qwen3-32b-a2-tp2"
    yield Case("--help", ["--help"], 0.25)
    yield plan("DeepSeek-R1 TP8, as shipped", r1, target_s=1.0)
    yield plan("DeepSeek-R1 TP8, five modes", r1, modes(16384), target_s=1.0)
    yield plan("Qwen3-32B TP2, five modes", qwen, modes(16384), target_s=1.0)

    r1_long, qwen_long = [*layers(128), *modes(MILLION)], [*layers(128), *modes(MILLION)]
    yield plan("128 layers, five modes to 1M tokens (R1)", r1, r1_long, target_s=3.0)
    yield plan("  the same, a pin or forbid on every layer", r1, [*r1_long, *rules(128)], target_s=3.0)
    yield plan("128 layers, five modes to 1M tokens (Qwen)", qwen, qwen_long, target_s=3.0)
    yield plan("  the same, a pin or forbid on every layer", qwen, [*qwen_long, *rules(128)], target_s=3.0)
    weights = sensitivity(folder / "weights-128.yaml", 128)
    for budget in (0.01, 0.05, 0.09):
        name = f"  the same, random weights, error budget {budget}"
        yield plan(name, qwen, [*qwen_long, *weights, "--set", f"numerics.error_budget={budget}"], target_s=3.0)

    for count in (32, 64, 128, 256):
        yield plan(f"scaling: {count} layers", r1, layers(count))
    for count in (32, 64, 128, 256):
        more = [*sensitivity(folder / f"weights-{count}.yaml", count), "--set", "numerics.error_budget=0.05"]
        yield plan(f"scaling: {count} layers, weights and budget", qwen, [*layers(count), *more])
    for last in (4096, 32768, 262144, MILLION, 4 * MILLION):
        yield plan(f"scaling: five modes to {last} tokens", r1, modes(last))


def plan(name: str, deployment: str, overrides: list[str] | None = None, target_s: float | None = None) -> Case:
    return Case(name, ["plan", deployment, *(overrides or []), "--json"], target_s)


def layers(count: int) -> list[str]:
    return ["--set", f"model.num_hidden_layers={count}"]


def modes(last: int) -> list[str]:
    """All five modes up to a token count."""
    texts = [f"modes.{mode}={text.format(last=last)}" for mode, text in OTHER_MODES.items()]
    texts += [f"modes.{mode}.tokens=[1, {last}]" for mode in ("prefill", "decode")]
    return [part for text in texts for part in ("--set", text)]


def rules(count: int) -> list[str]:
    """A pin on every even layer, a forbid on every odd one, in as many kinds as there are: few layers stay alike."""
    pins, forbids = [], []
    boundaries = ("attn_out", "mlp_out")
    ops = ("reduce_scatter", "int8_all_reduce", "reduce_scatter_all_gather", "latent_all_gather", "all_gather")
    subsets = ("prefill", "decode", "mixed", "target_verify", "draft_extend", "prefill, decode")
    for layer in range(count):
        if layer % 2 == 0:
            where = f"boundary: {boundaries[layer // 2 % 2]}, modes: [{subsets[layer // 4 % len(subsets)]}]"
            pins.append(f"{{op: all_reduce, layers: {layer}, {where}}}")
        else:
            where = f"modes: [{subsets[layer // 10 % len(subsets)]}]"
            forbids.append(f"{{op: {ops[layer // 2 % len(ops)]}, layers: {layer}, {where}}}")
    return ["--set", f"numerics.pin=[{', '.join(pins)}]", "--set", f"numerics.forbid=[{', '.join(forbids)}]"]


def sensitivity(file: Path, count: int) -> list[str]:
    """A weight of its own for both sums of every layer: no two layers are alike."""
    draw = random.Random(count)
    lines = [
        f"{boundary}: [{', '.join(f'{draw.lognormvariate(0, 0.7):.6f}' for _ in range(count))}]"
        for boundary in ("attn_out", "mlp_out")
    ]
    file.write_text("\n".join(["schema: commplan/sensitivity/v1", *lines, ""]))
    return ["--set", "numerics.loosest=quantized", "--set", f"numerics.sensitivity={file}"]


# ---- report --------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="runs of every case (default 5)")
    parser.add_argument("--only", default="", help="run only the cases with this in their name")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = [case for case in cases(Path(folder)) if given.only in case.name]
        for index in range(given.runs + 1):  # the first run fills the file cache, and is not counted
            print(f"\rrun {index} of {given.runs} of {len(chosen)} cases", end="", file=sys.stderr, flush=True)
            for case in chosen:
                case.run()
                if index == 0:
                    case.times_s.clear()
                    case.processor_s.clear()
    print("\r" + " " * 50 + "\r", end="", file=sys.stderr)
    report(chosen, given.runs)


def report(chosen: list[Case], runs: int) -> None:
    width = max(len(case.name) for case in chosen)
    print(f"Whole processes, {runs} runs each, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    columns = "".join(f"  {name:>8}" for name in ("median", "fastest", "slowest", "CPU", "target"))
    print(f"{'':{width}}{columns}  {'peak':>7}  {'ranges':>6}")
    for case in chosen:
        low, middle, high = min(case.times_s), statistics.median(case.times_s), max(case.times_s)
        processor = statistics.median(case.processor_s)
        missed = (case.target_s is not None and middle > case.target_s) or case.peak_mb > TARGET_MB
        target = "" if case.target_s is None else f"{case.target_s:.2f} s"
        print(
            f"{case.name:{width}}  {middle:6.2f} s  {low:6.2f} s  {high:6.2f} s  {processor:6.2f} s"
            f"  {target:>8}  {case.peak_mb:4.0f} MB  {case.ranges or '':>6}{'  MISSED' if missed else ''}"
        )
    print(f"Memory target: {TARGET_MB} MB each.")


if __name__ == "__main__":
    main()
