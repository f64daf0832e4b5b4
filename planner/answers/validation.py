"""Is a strategy file legal for its model, parallelism, modes and executor? No hardware needed, no cost model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..descriptions.deployment import DTYPE_BYTES
from ..descriptions.loader import preset_names
from ..executors import Executor, load_executor
from ..strategy.errors import CommplanError, InputError
from ..strategy.file import Problem, RangePlan, StrategyFile, problems, read
from ..strategy.file.legality import field_of, walk
from ..strategy.layout import IllegalOpError, State, group_of, with_group
from ..strategy.lines_of_files import Lines
from ..strategy.ops import Op
from ..strategy.words import MlpKind
from .made_for import contradictions, made_for


def validate(path: str | Path) -> list[Problem]:
    """Everything wrong with a file, with its line; empty if it is legal."""
    return _on_lines(_problems(path), path)


def _on_lines(found: list[Problem], path: str | Path) -> list[Problem]:
    lines = Lines.of_file(path) if found else None
    return [replace(problem, line=lines.of(problem.field)) for problem in found] if lines is not None else found


def _problems(path: str | Path) -> list[Problem]:
    try:
        strategy = read(path)
    except InputError as error:
        return [_problem(error)]
    found = list(problems(strategy))
    try:
        return found + _executor_problems(strategy, load_executor(strategy.executor))
    except InputError as error:
        return [*found, _problem(error)]


def compared(path: str, deployment: str | None = None) -> tuple[list[Problem], list[str]]:
    """A legal file beside what it was made for: what its head says otherwise than its own fingerprints, else what is
    another thing today. Neither where that is a deployment that nobody names."""
    strategy = read(path)
    if deployment is None and strategy.deployment.name not in preset_names("deployments"):
        return [], []
    try:
        made = made_for(strategy, path, deployment)
    except CommplanError as error:
        return [], [f"what it was made for cannot be read: {error}"]
    found = _on_lines([_problem(error) for error in contradictions(strategy, made.setup)], path)
    return found, [] if found else list(made.differs)


def _problem(error: InputError) -> Problem:
    value = error.as_json()["value"]
    return Problem(error.field or "", "" if value is None else str(value), error.message)


def _executor_problems(strategy: StrategyFile, executor: Executor) -> list[Problem]:
    found = []
    if executor.architectures is not None and strategy.model.architecture not in executor.architectures:
        found.append(
            Problem(
                "executor",
                executor.name,
                f"has no adapter for {strategy.model.architecture}; it has {', '.join(executor.architectures)}",
            )
        )
    moe_backend = strategy.parallelism.moe_backend
    if moe_backend not in executor.moe_backends:
        runs = ", ".join(executor.moe_backends)
        found.append(Problem("parallelism.moe_backend", moe_backend, f"{executor.name} runs {runs} experts only"))
    if split := executor.can.split_refusal(strategy.parallelism):
        key, reason = split
        found.append(Problem(f"parallelism.{key}", str(getattr(strategy.parallelism, key)), reason))
    if strategy.hardware.backend not in executor.impls:
        found.append(Problem("hardware.backend", strategy.hardware.backend, f"{executor.name} has no such impl"))
    for mode, ranges in strategy.modes.items():
        for index, plan in enumerate(ranges):
            refused: dict[str, Problem] = {}
            try:
                for layer, boundary, op, before, _ in walk(strategy, plan):
                    mlp: MlpKind = "moe" if layer in strategy.model.moe_layers else "dense"
                    shape, p = strategy.layer_shape(layer or 0), strategy.parallelism
                    spelled = _with_impl(with_group(boundary, op, before, shape, p), strategy)
                    why = executor.can.refusal(
                        boundary, spelled, mode, mlp, p, architecture=strategy.model.architecture
                    )
                    why = why or _cannot_perform(layer, boundary, op, before, strategy, executor)
                    why = why or _too_large(op, plan, strategy, executor)
                    if why is not None and why not in refused:
                        field = field_of(f"modes.{mode}[{index}]", layer, boundary)
                        refused[why] = Problem(field, str(op), why)
            except IllegalOpError:
                pass  # reported by `problems`
            found += refused.values()
    return found


def _cannot_perform(
    layer: int | None, boundary: str, op: Op, before: State | None, strategy: StrategyFile, executor: Executor
) -> str | None:
    """Why the impl of an op cannot perform it here, or None."""
    p, shape = strategy.parallelism, strategy.layer_shape(layer or 0)
    size = p.group_size(group_of(boundary, op, before, shape, p))
    model, dtype = strategy.model, strategy.deployment.activations
    width = model.latent_width if op.kind.latent else model.hidden_size
    return executor.can.impl_refusal(boundary, op, strategy.hardware.backend, dtype, size, width, shape)


def _too_large(op: Op, plan: RangePlan, strategy: StrategyFile, executor: Executor) -> str | None:
    """Why an impl refuses the largest message of a range, or None."""
    limit = executor.impls[op.impl].most_bytes(op.algorithm) if op.impl in executor.impls else None
    if limit is None:
        return None
    row_bytes = strategy.model.hidden_size * DTYPE_BYTES[strategy.deployment.activations]
    if plan.last * row_bytes <= limit:
        return None
    return f"{op.impl} takes messages up to {limit} bytes: {int(limit // row_bytes)} tokens, not {plan.last}"


def _with_impl(op: Op, strategy: StrategyFile) -> Op:
    return replace(op, impl=op.impl or strategy.hardware.backend) if op.kind.is_collective else op
