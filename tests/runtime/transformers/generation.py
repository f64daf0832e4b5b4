"""Runs on a rank: whole generations under a plan, and the same by one process."""

from __future__ import annotations

from typing import Any

import torch

from ..parity import Named, sharded, single_process
from ..prompts import requests

NEW_TOKENS = 6


def prompts(group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[2, 7] token ids of a DP group, the first request padded on the left; and their mask."""
    ids = requests()[2 * group : 2 * group + 2, :7].clone()
    mask = torch.ones_like(ids)
    ids[0, :2], mask[0, :2] = 0, 0
    return ids, mask


def generations(checkpoint: str, plans: list[Named], **options: Any) -> list[tuple[str, list[Any], list[Any]]]:
    """(plan, tokens under the plan, tokens by one process) of this rank's DP group."""
    found = []
    for plan in plans:
        executor = sharded(checkpoint, plan.file)
        ids, mask = prompts(executor.groups.attn_dp.rank)
        arguments = {
            "attention_mask": mask,
            "max_new_tokens": NEW_TOKENS,
            "do_sample": False,
            "pad_token_id": 0,
            **options,
        }
        wanted = single_process(checkpoint).generate(ids, **arguments)
        got = executor.generate(ids, **arguments)
        found.append((plan.name, got.tolist(), wanted.tolist()))
    return found


def with_options(
    checkpoint: str, plans: list[Named], options: dict[str, Any]
) -> list[tuple[str, list[Any], list[Any]]]:
    return generations(checkpoint, plans, **options)


def ending_early(checkpoint: str, plans: list[Named]) -> list[tuple[str, list[Any], list[Any]]]:
    """The end-of-sequence token is one that the first DP group generates at its second step, others later or never."""
    ids, mask = prompts(0)
    free = single_process(checkpoint).generate(
        ids, attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0
    )
    ends = sorted({int(token) for token in free[:, 8]})
    return generations(checkpoint, plans, eos_token_id=ends)


def forwards(checkpoint: str, plan: Named) -> list[tuple[str, int]]:
    """(mode, tokens) of every forward of a generation."""
    generations(checkpoint, [plan])
    executor = sharded(checkpoint, plan.file)
    generations(checkpoint, [plan])
    return executor.forwards
