"""Runs on a rank: transformers' continuous batching under a plan, and greedy generation by one process."""

from __future__ import annotations

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from commplan.runtime import load_model
from commplan.runtime.errors import RefusedError

from ..parity import Named, single_process
from ..prompts import requests

NEW_TOKENS = 5
LENGTHS = (7, 3, 12, 5)


def batched(checkpoint: str, plan: Named) -> tuple[list[list[int]], list[list[int]], dict[str, int]]:
    """(new tokens under the plan, the same by one process, forwards by mode)."""
    executor = load_model(checkpoint, plan.file)
    prompts = [requests()[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    paging = ContinuousBatchingConfig(num_blocks=16, block_size=32, max_batch_tokens=64)
    done = executor.generate_batch(prompts, generation_config=config, continuous_batching_config=paging, warmup=False)
    got = [request.generated_tokens for request in sorted(done.values(), key=lambda r: prompts.index(r.prompt_ids))]
    wanted = []
    for prompt in prompts:
        alone = single_process(checkpoint).generate(
            torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
        )
        wanted.append(alone[0, len(prompt) :].tolist())
    executor.close()
    modes = [mode for mode, _ in executor.forwards]
    return got, wanted, {mode: modes.count(mode) for mode in modes}


def refusal(checkpoint: str, plan: Named) -> str:
    executor = load_model(checkpoint, plan.file)
    try:
        executor.generate_batch([[1, 2]])
    except RefusedError as error:
        return str(error)
    finally:
        executor.close()
    return "went through"
