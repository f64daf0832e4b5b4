"""Runs on a rank: forwards in bf16 under a plan and by one process, both against one process in fp32."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from ..cases import split
from ..parity import Named, forward, mine, reference, sharded
from ..prompts import requests

BATCH, SEQ = 4, 12


class Squares(NamedTuple):
    """Sums of squares over this rank's logits of a prefill and a decode step."""

    planned_error: float
    single_error: float
    logits: float


@cache
def single_process(checkpoint: str) -> Any:
    """The whole model in bf16, as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()


def squares(checkpoint: str, plans: list[Named]) -> list[Squares]:
    found = []
    for plan in plans:
        executor = sharded(checkpoint, plan.file)
        first, batch, _ = mine(executor, split(BATCH, SEQ, executor.groups.parallelism.attn_dp))
        ids, wanted = requests()[first : first + batch], reference(checkpoint)[first : first + batch, : SEQ + 1]
        cache = DynamicCache(config=executor.model.config)
        pieces = (
            forward(executor, "prefill", ids[:, :SEQ], cache),
            forward(executor, "decode", ids[:, SEQ : SEQ + 1], cache),
        )
        assert pieces[0].dtype == torch.bfloat16
        with torch.no_grad():
            alone = single_process(checkpoint)(ids[:, : SEQ + 1], use_cache=False).logits
        errors = [(logits.double() - wanted.double()).square().sum().item() for logits in (torch.cat(pieces, 1), alone)]
        found.append(Squares(*errors, wanted.double().square().sum().item()))
    return found
