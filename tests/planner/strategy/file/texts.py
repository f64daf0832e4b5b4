"""Strategy files written by hand, so to speak: from a world and its ops to text, without the writer under test."""

from __future__ import annotations

import json
from typing import Any

from .rules import IN_LAYER, Op, World


def spelled(op: Op) -> Any:
    """An op as a file spells it: its name, or its name with parameters."""
    given = {"algorithm": op.algorithm, "group": op.group, "residual": op.residual, "from": op.producer}
    parameters = {key: value for key, value in given.items() if value is not None}
    return {op.name: parameters} if parameters else op.name


def text_of(world: World, *plans: tuple[tuple[int, int], list[Op]]) -> str:
    """The file of one forward mode with a range of tokens per plan. JSON in one line is YAML too."""
    model: dict[str, Any] = {
        "name": "m", "role": "target", "architecture": "A", "num_hidden_layers": world.num_layers, "hidden_size": 64,
        "latent_width": 96 if world.latents else 0, "fingerprint": "0",
    }  # fmt: skip
    if world.moe_layers:
        model["moe_layers"] = ",".join(map(str, sorted(world.moe_layers)))
    backend = "all_to_all" if world.all_to_all else "tensor_parallel"
    ep = world.tp if world.all_to_all else 1
    sections = {
        "schema": "commplan/strategy/v1",
        "model": model,
        "hardware": {"name": "h", "backend": "nccl", "fingerprint": "0"},
        "deployment": {"name": "d", "activations": "bf16", "fingerprint": "0"},
        "executor": "plan_only",
        "parallelism": {"tp": world.tp, "attn_dp": world.attn_dp, "ep": ep, "moe_backend": backend},
        "numerics": world.numerics,
        "modes": {"prefill": [_range(world, tokens, ops) for tokens, ops in plans]},
        "end": True,
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in sections.items())


def _range(world: World, tokens: tuple[int, int], ops: list[Op]) -> dict[str, Any]:
    embed_out, *inner, head_in = map(spelled, ops)
    layers = [
        {"layers": layer, **dict(zip(IN_LAYER, inner[4 * layer : 4 * layer + 4], strict=True))}
        for layer in range(world.num_layers)
    ]
    return {"tokens": list(tokens), "embed_out": embed_out, "layers": layers, "head_in": head_in}
