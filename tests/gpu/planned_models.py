"""Runs on a rank: whole models in bf16 under plans that name collectives of our own."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import torch

from commplan.planner.strategy.file import HardwareStamp, Parallelism, StrategyFile, problems
from commplan.runtime import Executor, load_model
from commplan.runtime.bound.counts import expected_calls

from ..runtime.legal_plans import Plan, covering_plans, preferring
from ..runtime.own_plans import Choose, at_random, most_fused, with_impls
from ..runtime.strategy_files import from_plans, world_of

TOKENS = (1, 7, 64)


def plans(checkpoint: str, ranks: int) -> dict[str, StrategyFile]:
    """Plain all-reduce by the library, first; then random plans that use every op, each by one impl or the other."""
    p = Parallelism(ranks)
    world = world_of(checkpoint, p)
    layers = world.layers

    def file_of(plan: Plan, choose: Choose | None) -> StrategyFile:
        chosen = plan if choose is None else with_impls(world, plan, choose)
        file = from_plans(checkpoint, p, chosen, chosen, activations="bf16")
        file = replace(file, hardware=HardwareStamp(f"{ranks} GPUs", "nccl", "0" * 16))
        assert not list(problems(file)), next(problems(file))
        return file

    found = {"plain": file_of(preferring(world, (("all_reduce", "none"),) * (layers + 1)), None)}
    for number, plan in enumerate(covering_plans(world, 6, seed=3, quantized=False)):
        choose = most_fused if number % 2 else at_random(number)
        found[f"exact {number}"] = file_of(plan, choose)
    rng = random.Random(5)
    for number, plan in enumerate(rng.sample(covering_plans(world, 8, seed=4, quantized=True), 4)):
        found[f"int8 {number}"] = file_of(plan, most_fused)
    return found


def logits(executor: Executor, ids: torch.Tensor) -> torch.Tensor:
    with executor.forward("prefill"):
        out: torch.Tensor = executor.model(ids).logits.float()
    return out


def against_one_process(checkpoint: str) -> dict[str, Any]:
    """By plan: the largest relative RMS error of the logits against fp32 in one process; and wrong counts."""
    from transformers import AutoModelForCausalLM

    torch.cuda.set_device(0)
    whole = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    requests = {t: torch.randint(0, 60, (1, t), generator=torch.Generator().manual_seed(t)) for t in TOKENS}
    files = plans(checkpoint, int(os.environ["WORLD_SIZE"]))
    errors, wrong = {}, []
    with torch.no_grad():
        wanted = {t: whole(ids).logits for t, ids in requests.items()}
        executor = load_model(checkpoint, files["plain"])
        for name, file in files.items():
            executor.switch(file)
            worst = 0.0
            for tokens, ids in requests.items():
                found = logits(executor, ids.cuda()).cpu()
                worst = max(worst, float((found - wanted[tokens]).norm() / wanted[tokens].norm()))
            errors[name] = worst
            if executor.counters.calls() != expected_calls(file, executor.forwards):
                wrong.append(name)
        torch.cuda.synchronize()
        executor.check_peers()
        executor.close()
    return {"errors": errors, "wrong counts": wrong}
