"""Perplexity of a trained checkpoint whose sums are quantised, with rows rotated and as they are: docs/rotation.md.

    python benchmarks/quality/rotation.py CHECKPOINT [--ranks 3] [--tokens 4096] [--rotated FOLDER ...]
    python benchmarks/quality/rotation.py CHECKPOINT --only "int8 token" "int4 64" --algorithm two_shot
    python benchmarks/quality/rotation.py CHECKPOINT --rows      # what partial sums look like, and lose, by rotation

CHECKPOINT is a Llama-like model whose heads and MLP the ranks divide, with a tokenizer; it is computed in fp32. One
process stands for all ranks: o_proj and down_proj are cut along their input, what each rank would send is quantised,
then summed in fp32 (`gather`), and the sum quantised once more (`two_shot`). Sums are rotated by Q before and by Q
transposed after, which is what an op would do and, but for the rounding of folded weights, what a checkpoint rotated by
Q does (`--rotated` measures such folders, as `commplan rotate` writes them). Text: Python's own language reference.

Beside perplexity stands the mean KL divergence from the exact model: it has no lucky sign, so it tells formats apart
whose perplexities do not.
"""

from __future__ import annotations

import argparse
import math
import pydoc_data.topics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commplan.runtime.rotation.hadamard import Rotation

sys.path.insert(0, str(Path(__file__).parents[1] / "planner"))
from wire_error import quantised

LENGTH = 512
FORMATS = (
    ("int8", "token"),
    ("int8", "64"),
    ("int4", "64"),
    ("int6", "64"),
    ("fp8_e4m3", "token"),
    ("fp8_e4m3", "64"),
    ("int4_spikes", "64"),
)
Trip = Callable[[Tensor], Tensor]
"""Rows to what they are after a trip."""


class QuantisedSums:
    """A model whose partial sums are those of `ranks` ranks; `trip` is what happens to a row on its way."""

    def __init__(self, model: Any, ranks: int, algorithm: str) -> None:
        self.trip: Trip | None = None
        self.ranks, self.algorithm = ranks, algorithm
        for layer in model.model.layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                self._cut(linear)

    def _cut(self, linear: Any) -> None:
        whole, parts = linear.forward, linear.weight.chunk(self.ranks, 1)

        def forward(x: Tensor) -> Tensor:
            if self.trip is None:
                return whole(x)
            sums = [
                self.trip(torch.nn.functional.linear(part, weight).float())
                for part, weight in zip(x.chunk(self.ranks, -1), parts, strict=True)
            ]
            total = torch.stack(sums).sum(0)
            return (self.trip(total) if self.algorithm == "two_shot" else total).to(x.dtype)

        linear.forward = forward


def trip_of(wire: str, group: str, rotation: Rotation | None) -> Trip:
    """A trip in a format, between a rotation and its undoing."""
    if rotation is None:
        return lambda x: quantised(x, wire, group)
    turn = rotation.apply(torch.eye(rotation.width)).float()
    return lambda x: quantised(x @ turn, wire, group) @ turn.T


def load(folder: Path) -> tuple[Any, Tensor]:
    """A model and the ids of the text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    topics = pydoc_data.topics.topics
    prose = " ".join(topics[key] for key in sorted(topics, key=lambda key: (-len(topics[key]), key))[:6])
    ids = AutoTokenizer.from_pretrained(folder)(prose, return_tensors="pt").input_ids[0]
    return model, ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)


@torch.no_grad()
def log_probabilities(model: Any, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(log-probabilities of all words but the first, those words) of each text."""
    for line in ids:
        yield model(line[None]).logits[0, :-1].float().log_softmax(-1), line[1:]


def perplexity_and_divergence(model: Any, ids: Tensor, exact: list[Tensor]) -> tuple[float, float]:
    """Perplexity, and the mean KL divergence from what the exact model says."""
    losses, divergences = [], []
    for (found, words), wanted in zip(log_probabilities(model, ids), exact, strict=True):
        losses.append(float(torch.nn.functional.nll_loss(found, words)))
        divergences.append(float(torch.nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)))
    return math.exp(math.fsum(losses) / len(losses)), math.fsum(divergences) / len(divergences)


def rotations(width: int, named: list[str]) -> dict[str, Rotation | None]:
    """Those that are asked for: `none`, `64`, `64 signs`, `full signs 3` (of seed 3)."""
    found: dict[str, Rotation | None] = {}
    for name in named:
        block, _, signs = name.partition(" ")
        if block == "none":
            found[name] = None
        else:
            seed = int(signs.removeprefix("signs") or 0) if signs else None
            found[name] = Rotation(width, width if block == "full" else int(block), seed)
    return found


@torch.no_grad()
def print_rows(model: Any, ids: Tensor, sums: QuantisedSums, turned: dict[str, Rotation | None]) -> None:
    """Of partial sums: their largest value over their root mean square, and what INT8 per token loses of them."""
    outliers: dict[str, list[float]] = {name: [] for name in turned}
    lost: dict[str, list[float]] = {name: [] for name in turned}

    def seen(x: Tensor) -> Tensor:
        for name, rotation in turned.items():
            rows = x[0] if rotation is None else rotation.apply(x[0]).float()
            outliers[name].append(float((rows.abs().amax(-1) / rows.square().mean(-1).sqrt()).mean()))
            lost[name].append(float((quantised(rows, "int8", "token") - rows).norm() / rows.norm()))
        return x

    sums.trip = seen
    model(ids[:1])
    line("rotation", "largest / RMS, mean; worst boundary", "INT8 per token, relative error, mean; worst boundary")
    line("---", "---:", "---:")
    for name in turned:
        pairs = (outliers[name], lost[name])
        ratio, error = ((math.fsum(values) / len(values), max(values)) for values in pairs)
        line(name, f"{ratio[0]:.1f}; {ratio[1]:.1f}", f"{error[0]:.4f}; {error[1]:.4f}")


def line(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def shown(exact: float, found: tuple[float, float]) -> tuple[str, str]:
    return f"{(found[0] / exact - 1) * 100:+.2f} %", f"{found[1] * 1000:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--algorithm", choices=("gather", "two_shot"), default="gather")
    parser.add_argument("--only", nargs="*", metavar="FORMAT", help='as in "int8 token"')
    parser.add_argument("--rotations", nargs="*", default=["none", "16", "64", "64 signs", "full signs"])
    parser.add_argument("--rows", action="store_true", help="look at the partial sums of 512 tokens, and do no more")
    parser.add_argument("--rotated", nargs="*", type=Path, default=[], metavar="FOLDER")
    given = parser.parse_args()
    model, ids = load(given.checkpoint)
    ids = ids[: given.tokens // LENGTH]
    turned = rotations(model.config.hidden_size, given.rotations)
    if given.rows:
        print_rows(model, ids, QuantisedSums(model, given.ranks, "gather"), turned)
        return
    exact = [found for found, _ in log_probabilities(model, ids)]
    base, _ = perplexity_and_divergence(model, ids, exact)
    print(f"# {ids.numel()} tokens, {given.ranks} ranks, {given.algorithm}; exact perplexity {base:.4f}")
    line("checkpoint", "rotation in the op", "format", "perplexity", "KL x 1000")
    line("---", "---", "---", "---:", "---:")
    chosen = [(w, g) for w, g in FORMATS if given.only is None or f"{w} {g}" in given.only]
    sums = QuantisedSums(model, given.ranks, given.algorithm)
    for wire, group in chosen:
        for name, rotation in turned.items():
            sums.trip = trip_of(wire, group, rotation)
            line("as it is", name, f"{wire} {group}", *shown(base, perplexity_and_divergence(model, ids, exact)))
    for folder in given.rotated:
        model, _ = load(folder)
        sums = QuantisedSums(model, given.ranks, given.algorithm)
        line(folder.name, "none", "none", *shown(base, perplexity_and_divergence(model, ids, exact)))
        for wire, group in chosen:
            sums.trip = trip_of(wire, group, None)
            line(folder.name, "none", f"{wire} {group}", *shown(base, perplexity_and_divergence(model, ids, exact)))


if __name__ == "__main__":
    main()
