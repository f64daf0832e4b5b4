"""Strategy files for tiny checkpoints: from sequences of ops written here, or planned by commplan itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commplan.planner.answers.to_file import range_plan, with_stamps
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.graph import Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.ranges import PlannedRange
from commplan.planner.strategy.file import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Op,
    Parallelism,
    RangePlan,
    StrategyFile,
    config_fingerprint,
)

from .legal_plans import Plan, World

MOST_TOKENS = 256


def read_config(checkpoint: str | Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((Path(checkpoint) / "config.json").read_text())
    return config


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json says of the text."""
    return {**config, **config.get("text_config", {})}


def moe_layers(config: Mapping[str, Any]) -> frozenset[int]:
    layers = range(config["num_hidden_layers"])
    if "n_routed_experts" in config:
        return frozenset(n for n in layers if n >= config.get("first_k_dense_replace", 0))
    return frozenset(layers) if {"num_experts", "num_local_experts"} & set(config) else frozenset()


def latent_width(config: Mapping[str, Any]) -> int:
    """Columns of the latents that MLA reads its hidden states into; 0 without q_lora_rank."""
    if not config.get("q_lora_rank") or "kv_lora_rank" not in config:
        return 0
    width = config["q_lora_rank"] + config["kv_lora_rank"] + config["qk_rope_head_dim"]
    return int(width + config.get("index_head_dim", 0) + config.get("index_n_heads", 0))


def world_of(checkpoint: str | Path, p: Parallelism) -> World:
    """What is legal for a checkpoint on these ranks."""
    config = text_of(read_config(checkpoint))
    sharded = moe_layers(config) if p.moe_backend == "all_to_all" and p.tp > 1 else frozenset()
    spanning = config["model_type"] == "minimax_m2"
    layers, streams = config["num_hidden_layers"], config.get("hc_mult", 1)
    return World(p.tp, p.attn_dp, latent_width(config) > 0, layers, sharded, spanning, streams)


def ranges_of(ops: Sequence[Op], first: int = 1, last: int = MOST_TOKENS) -> RangePlan:
    """A range from its ops in the order of the forward."""
    layers = tuple(LayerOps(*ops[i : i + 4]) for i in range(1, len(ops) - 1, 4))
    return RangePlan(first, last, ops[0], layers, ops[-1])


def strategy_file(
    checkpoint: str | Path,
    p: Parallelism,
    modes: Mapping[str, Sequence[RangePlan]],
    *,
    numerics: str = "quantized",
    activations: str = "fp32",
) -> StrategyFile:
    """A file that says what `modes` says, stamped for a checkpoint; it is not checked for legality."""
    config = read_config(checkpoint)
    fingerprint = config_fingerprint(config)
    assert fingerprint is not None
    return StrategyFile(
        model=ModelStamp(
            name=Path(checkpoint).name,
            role="target",
            architecture=config["architectures"][0],
            num_hidden_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            latent_width=latent_width(config),
            moe_layers=moe_layers(config),
            residual_streams=config.get("hc_mult", 1),
            fingerprint=fingerprint,
        ),
        hardware=HardwareStamp("cpu-gloo", "gloo", "0" * 16),
        deployment=DeploymentStamp("tiny", activations, "0" * 16),
        executor="transformers",
        parallelism=p,
        numerics=numerics,
        modes={mode: tuple(ranges) for mode, ranges in modes.items()},
    )


def from_plans(checkpoint: str | Path, p: Parallelism, prefill: Plan, decode: Plan, **options: Any) -> StrategyFile:
    """A file with one range per mode."""
    modes = {"prefill": prefill, "decode": decode}
    return strategy_file(
        checkpoint, p, {mode: [ranges_of([edge.op for edge in plan])] for mode, plan in modes.items()}, **options
    )


# ---- planned -----------------------------------------------------------------------------------------------------


def setup(checkpoint: str | Path, p: Parallelism, folder: Path, **numerics: Any) -> Setup:
    """A deployment of a checkpoint on ranks of this host, as the planner reads it."""
    dtype = {"weights": "fp32", "activations": "fp32", "kv_cache": "fp32"}
    deployment = {
        "schema": "commplan/deployment/v1",
        "name": f"tiny-{Path(checkpoint).name}-{p.tp}x{p.attn_dp}-{p.moe_backend}-{p.ep}",
        "model": str(Path(checkpoint) / "config.json"),
        "hardware": "cpu-gloo",
        "executor": "transformers",
        "parallelism": {"tp": p.tp, "attn_dp": p.attn_dp, "ep": p.ep, "moe_backend": p.moe_backend},
        "dtypes": dtype,
        "modes": {
            "prefill": {"tokens": [1, MOST_TOKENS], "sequence_tokens": 16},
            "decode": {"tokens": [1, MOST_TOKENS], "context_tokens": 16},
        },
        "numerics": {"loosest": "reordered", **numerics},
    }
    path = folder / f"{deployment['name']}.json"
    path.write_text(json.dumps(deployment))
    return load_setup(str(path))


def uniform(checkpoint: str | Path, p: Parallelism, strategy: str, folder: Path) -> StrategyFile:
    """The planner's cheapest member of a strategy at 16 tokens, for every token count."""
    numerics = {"loosest": "quantized"} if strategy == "int8_all_reduce" else {}
    planned = setup(checkpoint, p, folder, **numerics)
    modes = {}
    for mode in planned.deployment.modes:
        planner = ModePlanner(planned, mode)
        plan = planner.best(16, Restriction(strategies=(strategy,), pins=False))
        modes[mode] = (range_plan(planner, PlannedRange(1, MOST_TOKENS, plan, 0.0)),)
    return with_stamps(planned, modes)
