"""Writing a strategy file: canonical order, one line per run of equal layers, so that a diff shows a decision."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from ..files import write_text_atomically
from ..layout import LAYER_BOUNDARIES
from ..ops import Op, spell
from ..yaml_file import flow_text, scalar_text
from .document import STRATEGY_SCHEMA, LayerOps, Predicted, RangePlan, StrategyFile


def save(strategy: StrategyFile, path: str | Path) -> None:
    """Write the canonical text, whole or not at all."""
    write_text_atomically(path, dump(strategy))


def plan_again(strategy: StrategyFile, executor: str) -> str:
    """The command that plans the same deployment, overridden as it was, for another executor.

    A file of the user's is not known here, only what it calls itself.
    """
    given = {field: value for field, value in strategy.overrides.items() if field != "executor"}
    given["executor"] = executor
    texts = (f"--set {shlex.quote(f'{field}={flow_text(value)}')}" for field, value in given.items())
    name = strategy.deployment.name
    if not (files("commplan.configs") / "deployments" / f"{name}.yaml").is_file():
        return f"commplan plan DEPLOYMENT {' '.join(texts)} (DEPLOYMENT: the file of {name})"
    return f"commplan plan {name} {' '.join(texts)}"


def plan_hash(strategy: StrategyFile) -> str:
    """First 16 hex digits of the SHA-256 of the canonical text without predictions: equal if the same would run.

    Overrides are left out: what they change of what would run is in the fingerprints.
    """
    bare = {mode: tuple(replace(r, predicted=None) for r in ranges) for mode, ranges in strategy.modes.items()}
    return hashlib.sha256(dump(replace(strategy, modes=bare, overrides={})).encode()).hexdigest()[:16]


def dump(strategy: StrategyFile) -> str:
    """The canonical text: the same strategy gives the same bytes."""
    return "\n".join(_lines(strategy)) + "\n"


def _lines(strategy: StrategyFile) -> Iterator[str]:
    model, p = strategy.model, strategy.parallelism
    stamp: dict[str, object] = {
        "name": model.name,
        "role": model.role,
        "architecture": model.architecture,
        "num_hidden_layers": model.num_hidden_layers,
        "hidden_size": model.hidden_size,
        "latent_width": model.latent_width,
    }
    if model.residual_streams > 1:
        stamp["residual_streams"] = model.residual_streams
    if model.moe_layers:
        text = runs_text(sorted(model.moe_layers))
        stamp["moe_layers"] = int(text) if text.isdigit() else text
    stamp["fingerprint"] = model.fingerprint
    hardware, deployment = strategy.hardware, strategy.deployment
    yield f"schema: {STRATEGY_SCHEMA}"
    yield f"model: {flow_text(stamp)}"
    yield "hardware: " + flow_text(
        {"name": hardware.name, "backend": hardware.backend, "fingerprint": hardware.fingerprint}
    )
    yield "deployment: " + flow_text(
        {"name": deployment.name, "activations": deployment.activations, "fingerprint": deployment.fingerprint}
    )
    if strategy.overrides:
        yield f"overrides: {flow_text(strategy.overrides)}"
    yield f"executor: {scalar_text(strategy.executor)}"
    stages = {"pp": p.pp} if p.pp > 1 else {}  # came later: older files say nothing of it
    yield "parallelism: " + flow_text(
        {"tp": p.tp, "attn_dp": p.attn_dp, "ep": p.ep, "moe_backend": p.moe_backend, **stages}
    )
    yield f"numerics: {strategy.numerics}"
    yield "modes:"
    for mode, ranges in strategy.modes.items():
        yield f"  {mode}:"
        for plan in ranges:
            yield from _range_lines(plan)
    yield "end: true"


def _range_lines(plan: RangePlan) -> Iterator[str]:
    yield f"  - tokens: [{plan.first}, {plan.last}]"
    if not plan.embed_out.kind.is_none:
        yield f"    embed_out: {flow_text(spell(plan.embed_out))}"
    yield "    layers:"
    for layers, ops in _runs(plan.layers):
        run: dict[str, object] = {"layers": layers}
        run |= {b: spell(ops.at(b)) for b in LAYER_BOUNDARIES if not ops.at(b).kind.is_none}
        yield f"    - {flow_text(run)}"
    if not plan.head_in.kind.is_none:
        yield f"    head_in: {flow_text(spell(plan.head_in))}"
    if plan.predicted is not None:
        yield f"    predicted: {flow_text(_predicted(plan.predicted))}"


def _runs(layers: tuple[LayerOps, ...]) -> Iterator[tuple[str | int, LayerOps]]:
    """Runs of equal layers. A producer is relative (`previous.mlp_out`), so that equal layers look equal."""
    spelled = [_relative(layer, ops) for layer, ops in enumerate(layers)]
    start = 0
    for layer in range(1, len(spelled) + 1):
        if layer == len(spelled) or spelled[layer] != spelled[start]:
            yield (start if layer - 1 == start else f"{start}-{layer - 1}"), spelled[start]
            start = layer


def _relative(layer: int, ops: LayerOps) -> LayerOps:
    return replace(ops, attn_in=with_producer(layer, ops.attn_in))


def with_producer(layer: int, op: Op) -> Op:
    """A latent gather with its `from` spelled; any other op as it is."""
    if not op.kind.latent:
        return op
    return replace(op, producer="embed_out" if layer == 0 else "previous.mlp_out")


def runs_text(numbers: list[int]) -> str:
    """`0-3,7` from sorted numbers."""
    parts: list[str] = []
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
            start = number
        previous = number
    return ",".join(parts)


def _predicted(predicted: Predicted) -> dict[str, object]:
    best = predicted.best_uniform
    return {
        "tokens": predicted.tokens,
        "step_us": round(predicted.step_us, 1),
        **_stock(predicted),
        "all_reduce_us": round(predicted.all_reduce_us, 1),
        "best_uniform": None if best is None else {"strategy": best[0], "step_us": round(best[1], 1)},
        "worst_loss": round(predicted.worst_loss, 5),
        "source": predicted.source,
        **({"host_wait_us": round(predicted.host_wait_us, 1)} if predicted.host_wait_us else {}),
        **_perplexity(predicted),
    }


def _perplexity(predicted: Predicted) -> dict[str, object]:
    """What quantised sums do to the model, where that is known."""
    found = {"perplexity_rise": predicted.perplexity_rise, "perplexity_budget": predicted.perplexity_budget}
    return {key: float(f"{value:.6g}") for key, value in found.items() if value is not None}


def _stock(predicted: Predicted) -> dict[str, object]:
    """What the plan is held against; nothing for a file that is older."""
    if predicted.stock_us is None or predicted.library_us is None:
        return {}
    flag = predicted.best_stock_flag
    written: dict[str, object] = {
        "stock_us": round(predicted.stock_us, 1),
        "stock_source": predicted.stock_source,
        "best_stock_flag": None if flag is None else {"name": flag[0], "step_us": round(flag[1], 1)},
        "library_us": round(predicted.library_us, 1),
    }
    if predicted.faster_rivals:
        written["faster_rivals"] = [
            {"flag": each.flag, "tokens": [each.first, each.last], "lead": round(each.lead, 4)}
            for each in predicted.faster_rivals
        ]
    return written
