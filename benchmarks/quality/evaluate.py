"""What quantised sums cost a checkpoint, what its sensitivity predicts, what a plan by it saves; ranks emulated.

    python benchmarks/quality/evaluate.py CHECKPOINT --ids held.u16 --ranks 4 [-o results.json]

Effects are measured on the first windows, everything else on the others. All sums of a forward, attention's and MLP's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from formats import FORMATS, MEASURED, row_bytes
from torch import Tensor
from train import all_experts_at_once, tokens, windows

from commplan.planner.search.damage import MARGIN
from commplan.runtime.sensitivity.emulated_ranks import EmulatedRanks
from commplan.runtime.sensitivity.losses import Losses
from commplan.runtime.sensitivity.measure import Known, exact_loss, measure, perturbed

BUDGETS = (0.001, 0.002, 0.005, 0.01)
Place = tuple[int, str]


class Study:
    """A model with its effects, and losses on windows that those do not know."""

    def __init__(
        self, checkpoint: Path, seen_WS: Tensor, fresh_WS: Tensor, ranks: int, batch: int, device: str
    ) -> None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval().to(device)
        all_experts_at_once(model)
        self.ranks = EmulatedRanks(model, ranks)
        self.width: int = model.config.hidden_size
        self._seen, self._fresh = (Losses(self.ranks, ids.to(device), batch) for ids in (seen_WS, fresh_WS))
        self.exact = exact_loss(self._fresh)
        self.effects: Known = {}

    def rise(self, chosen: dict[Place, str]) -> float:
        """The relative rise of perplexity on fresh text, measured."""
        loss = self._fresh.with_sums({place: perturbed(FORMATS[name]) for place, name in chosen.items()})
        return math.expm1(loss - self.exact)

    def learn(self) -> None:
        """Measure the effects, place by place."""
        self.effects = dict(measure(self._seen, tuple(FORMATS[name] for name in MEASURED), {}))

    def effect(self, place: Place, name: str) -> float:
        """What a format does to the loss at a place, in nats; what came out negative counts nothing."""
        return max(0.0, self.effects[place].effects[MEASURED.index(name)].loss)

    def counted(self, place: Place, name: str) -> float:
        """The same with the margin by which a budget counts it."""
        odd = self.effects[place].effects[MEASURED.index(name)].odd
        return self.effect(place, name) + MARGIN / math.sqrt(len(self.ranks.places)) * abs(odd)

    def predicted(self, chosen: dict[Place, str]) -> float:
        """The relative rise of perplexity that the effects add up to."""
        return math.expm1(sum(self.effect(place, name) for place, name in chosen.items()))

    def everywhere(self, name: str) -> dict[Place, str]:
        """One format at every place."""
        return dict.fromkeys(self.ranks.places, name)

    def bytes_of(self, chosen: dict[Place, str]) -> float:
        """Mean bytes of a value on the wire; places that are not named travel in bf16."""
        rows = [row_bytes(FORMATS.get(chosen.get(place, "")), self.width) for place in self.ranks.places]
        return sum(rows) / len(rows) / self.width

    def within(self, budget: float) -> dict[Place, str]:
        """The choice of fewest bytes within a budget: the best exchange of bytes for loss first, along each hull."""
        left, chosen = math.log1p(budget), dict[Place, str]()
        steps = sorted(  # spent with the margin that plans take
            (slope, place, name, cost) for place in self.ranks.places for slope, name, cost in self._hull(place)
        )
        spent = dict.fromkeys(self.ranks.places, 0.0)
        for _, place, name, cost in steps:
            if cost - spent[place] <= left:
                left -= cost - spent[place]
                chosen[place], spent[place] = name, cost
        return chosen

    def _hull(self, place: Place) -> list[tuple[float, str, float]]:
        """(loss for a byte saved, format, its loss) along the lower hull of bytes and loss, beginning at bf16."""
        at, points = (row_bytes(None, self.width), 0.0), []
        options = {name: (row_bytes(FORMATS[name], self.width), self.counted(place, name)) for name in MEASURED}
        while True:
            lighter = {n: ((p[1] - at[1]) / (at[0] - p[0]), p) for n, p in options.items() if p[0] < at[0]}
            if not lighter:
                return points
            name = min(lighter, key=lambda n: (lighter[n][0], lighter[n][1][0]))
            slope, at = lighter[name]
            points.append((max(0.0, slope), name, at[1]))


def evaluated(study: Study) -> dict[str, Any]:
    """Every figure of a model."""
    began = time.monotonic()
    found: dict[str, Any] = {"perplexity": math.exp(study.exact), "width": study.width, "ranks": study.ranks.ranks}
    found["formats"] = {name: study.rise(study.everywhere(name)) for name in FORMATS}
    study.learn()
    found["outliers"] = {f"{i}.{b}": [r.outliers, r.worst_outliers] for (i, b), r in study.effects.items()}
    found["effects"] = {
        f"{i}.{b}": [[e.error, e.loss, e.odd] for e in r.effects] for (i, b), r in study.effects.items()
    }
    found["uniform"] = {
        name: {
            "predicted": study.predicted(study.everywhere(name)),
            "measured": found["formats"][name],
            "bytes": study.bytes_of(study.everywhere(name)),
        }
        for name in MEASURED
    }
    damages = {name: each["measured"] for name, each in found["uniform"].items() if each["measured"] > 0}
    found["budgets"] = [_planned(study, budget) for budget in sorted({*BUDGETS, *damages.values()})]
    found["seconds"] = time.monotonic() - began
    return found


def _planned(study: Study, budget: float) -> dict[str, Any]:
    chosen = study.within(budget)
    counts = {name: list(chosen.values()).count(name) for name in MEASURED}
    return {
        "budget": budget,
        "predicted": study.predicted(chosen),
        "measured": study.rise(chosen),
        "bytes": study.bytes_of(chosen),
        "kept": len(study.ranks.places) - len(chosen),
        "formats": {name: count for name, count in counts.items() if count},
    }


def print_results(name: str, found: dict[str, Any]) -> None:
    """A table for people."""
    print(
        f"{name}: perplexity {found['perplexity']:.3f} exact, {found['ranks']} ranks emulated, {found['seconds']:.0f} s"
    )
    worst = max(found["outliers"].items(), key=lambda item: item[1][0])
    print(f"  outliers: {worst[1][0]:.1f} times the RMS at {worst[0]}, {worst[1][1]:.0f} in its worst row")
    for each, rise in found["formats"].items():
        told = found["uniform"].get(each)
        print(
            f"  {each:36s} {rise:+9.3%}"
            + (f"  predicted {told['predicted']:+.3%}, {told['bytes']:.3f} bytes" if told else "")
        )
    for each in found["budgets"]:
        mix = ", ".join(f"{count} x {form}" for form, count in each["formats"].items())
        print(
            f"  budget {each['budget']:.3%}: predicted {each['predicted']:+.3%}, measured {each['measured']:+.3%}, "
            f"{each['bytes']:.3f} bytes a value, {each['kept']} kept; {mix}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--ids", type=Path, required=True, help="token ids, as texts.py writes them")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seen", type=int, default=48, help="windows on which effects are measured")
    parser.add_argument("--fresh", type=int, default=128, help="windows on which everything else is")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("-o", "--output", type=Path, help="JSON to write")
    given = parser.parse_args()
    ids_WS = windows(tokens(given.ids), given.length)
    seen, fresh = ids_WS[: given.seen], ids_WS[given.seen : given.seen + given.fresh]
    study = Study(given.checkpoint, seen, fresh, given.ranks, given.batch, given.device)
    found = evaluated(study)
    print_results(given.checkpoint.name, found)
    if given.output is not None:
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
