"""Perplexities of a text under plans, by the project's own runtime on spawned ranks; each is kept at once.

One start of the ranks reads the text under every plan that is not known yet: starting them takes longer than a text of
some thousand tokens does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

TIMEOUT_S = 7200.0  # a machine that is busy with other work is slow, not dead


class Losses:
    """Mean losses of a token of a text by plan, in a file that a later start goes on from.

    `exact` is that of one process. A plan is known by the bytes of its file, so a plan that changes is read again.
    """

    def __init__(self, file: Path, checkpoint: Path, windows: list[list[int]]) -> None:
        self.file, self.checkpoint, self.windows = file, checkpoint, windows
        about = {"checkpoint": str(checkpoint), "text": _digest(repr(windows))}
        held = json.loads(file.read_text()) if file.is_file() else {}
        self._held: dict[str, Any] = held if held.get("about") == about else {"about": about, "by_plan": {}}

    @property
    def exact(self) -> float:
        """Of the whole model in one process; computed where it is not known."""
        if "exact" not in self._held:
            import torch

            from commplan.runtime.transformers.loading import whole_model
            from commplan.runtime.transformers.perplexity import mean_loss

            said(f"one process reads {self.tokens} tokens")
            self._held["exact"] = mean_loss(whole_model(self.checkpoint), torch.tensor(self.windows))
            self._write()
        return float(self._held["exact"])

    @property
    def tokens(self) -> int:
        """Of the text."""
        return sum(map(len, self.windows))

    def read_under(self, plans: list[Path], ranks: int) -> None:
        """Have the ranks read the text under every plan that is not known yet."""
        from commplan.runtime.ranks.spawning import run_ranks

        left = [str(plan) for plan in plans if _digest(plan.read_text()) not in self._held["by_plan"]]
        if left:
            said(f"{ranks} ranks read {self.tokens} tokens under {len(left)} plans")
            run_ranks(_rank, ranks, self, left, timeout_s=TIMEOUT_S)
            self._held = json.loads(self.file.read_text())

    def rise(self, plan: Path) -> float:
        """The relative rise of perplexity under a plan that was read."""
        return math.expm1(self._held["by_plan"][_digest(plan.read_text())] - self.exact)

    def keep(self, plan: str, loss: float) -> None:
        """A result, on the disk too."""
        self._held["by_plan"][_digest(Path(plan).read_text())] = loss
        self._write()

    def _write(self) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(self._held, indent=1) + "\n")
        beside.replace(self.file)


def _rank(losses: Losses, plans: list[str]) -> None:
    """What each rank does: the sharded model of each plan reads the text; rank 0 keeps what it loses."""
    import torch

    from commplan.runtime.transformers.loading import load_model
    from commplan.runtime.transformers.perplexity import MODE, mean_loss

    ids = torch.tensor(losses.windows)
    for number, plan in enumerate(plans, start=1):
        began = time.monotonic()
        executor = load_model(losses.checkpoint, plan, timeout_s=TIMEOUT_S)
        with executor.forward(MODE):
            loss = mean_loss(executor.model, ids)
        executor.check_peers()
        if os.environ["RANK"] == "0":
            losses.keep(plan, loss)
            said(f"{Path(plan).stem}: loss {loss:.5f}; {number} of {len(plans)}, {time.monotonic() - began:.0f} s")


def said(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
