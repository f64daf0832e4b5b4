"""`commplan check`: prove on this machine that a plan computes the right numbers by the planned ops."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import click

from commplan.planner.strategy.command_line.option_types import FILLED, RANKS, TOKENS, Seconds, Seed
from commplan.planner.strategy.command_line.terminal import echo, print_json, styled

if TYPE_CHECKING:
    from commplan.planner.strategy.file import StrategyFile

    from ..transformers.parity import ModeResult
    from ..transformers.perplexity import PerplexityResult


@click.command(
    "check", short_help="Run a plan on a checkpoint and compare logits and executed ops with what they should be."
)
@click.argument("strategy", type=FILLED)
@click.option("--model", "checkpoint", type=FILLED, required=True, help="Checkpoint directory (Hugging Face).")
@click.option("--nproc", type=RANKS, help="Ranks to spawn (default: the plan's tp).")
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Seed of the random prompts.")
@click.option(
    "--timeout", type=Seconds(), default=600.0, show_default=True, help="Seconds after which the ranks are ended."
)
@click.option("--max-tokens", type=TOKENS, default=512, show_default=True, help="Largest forward to run.")
@click.option(
    "--perplexity", "text", type=FILLED, help="Text whose perplexity to measure under the plan instead (UTF-8)."
)
@click.option("--text-tokens", type=TOKENS, default=4096, show_default=True, help="Tokens of that text, at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    strategy: str,
    checkpoint: str,
    nproc: int | None,
    seed: int,
    timeout: float,
    max_tokens: int,
    text: str | None,
    text_tokens: int,
    as_json: bool,
) -> None:
    """Run the plan in STRATEGY on a checkpoint, sharded over spawned ranks, and compare it with one process.

    Token counts hit both ends of every range, up to --max-tokens. Exit code 4 if a mode is out of bounds, an op
    ran that was not planned, or a rank failed.

    With --perplexity the ranks read a text in prefills of --max-tokens, and its perplexity stands beside that of one
    process and beside what the file predicts. Exit code 4 if it is above the budget that the plan was made under.
    """
    from commplan.planner.strategy.file import load

    from ..bound.host import check_host
    from ..errors import RefusedError
    from ..ranks.spawning import run_ranks
    from ..transformers.checkpoint_fit import check_fit
    from ..transformers.parity import check_rank

    plan = load(strategy)
    try:
        check_fit(plan, checkpoint)
    except RefusedError as error:
        raise error.in_file(strategy) from None
    ranks = nproc or plan.parallelism.tp
    if ranks != plan.parallelism.tp:
        raise RefusedError(
            f"the plan is for {plan.parallelism.tp} ranks; leave it out, or plan again with "
            f"--set parallelism.tp={ranks}",
            field="--nproc",
            value=ranks,
        )
    check_host(plan.hardware.backend, ranks, models=True)
    windows = _windows(checkpoint, text, plan, max_tokens, text_tokens) if text is not None else []
    echo(f"Loading {plan.model.name} on {ranks} ranks over {plan.hardware.backend} ...", err=True)
    if text is not None:
        _check_perplexity(plan.model.name, checkpoint, strategy, windows, ranks, timeout, as_json)
        return
    by_rank = run_ranks(check_rank, ranks, checkpoint, strategy, seed, max_tokens, timeout_s=timeout)
    results = [_worst(list(of_mode)) for of_mode in zip(*by_rank, strict=True)]
    if as_json:
        print_json({"modes": [_json(result) for result in results]})
    else:
        _print(plan.model.name, ranks, results)
    if not all(result.passed for result in results):
        sys.exit(4)


def _windows(checkpoint: str, text: str, plan: StrategyFile, most: int, tokens: int) -> list[list[int]]:
    from ..sensitivity.texts import token_windows
    from ..transformers.perplexity import window_of

    return token_windows(checkpoint, text, window_of(plan, most), tokens, "--max-tokens")[0]


def _check_perplexity(
    name: str, checkpoint: str, strategy: str, windows: list[list[int]], ranks: int, timeout: float, as_json: bool
) -> None:
    from ..ranks.spawning import run_ranks
    from ..transformers.perplexity import perplexity_rank

    found: PerplexityResult = run_ranks(perplexity_rank, ranks, checkpoint, strategy, windows, timeout_s=timeout)[0]
    if as_json:
        from dataclasses import asdict

        print_json({"perplexity": {**asdict(found), "rise": found.rise, "passed": found.passed}})
    else:
        mark = styled("ok", "green") if found.passed else styled("FAILED", "red")
        told = "nothing predicted" if found.predicted is None else f"{found.predicted:+.3%} predicted"
        allowed = "" if found.budget is None else f", {found.budget:+.3%} allowed"
        echo(styled(f"{name} on {ranks} ranks, {found.tokens} tokens in prefills of {found.window}", bold=True))
        echo(f"  perplexity {found.exact:.4f} by one process, {found.planned:.4f} under the plan")
        echo("  ", mark, f"  {found.rise:+.3%} measured, {told}{allowed}")
    if not found.passed:
        sys.exit(4)


def _worst(of_ranks: list[ModeResult]) -> ModeResult:
    """The rank with the largest error stands for all; miscounts of any rank count."""
    from dataclasses import replace

    worst = max(of_ranks, key=lambda result: result.max_error / max(result.bound, 1e-30))
    wrong = [f"rank {rank}: {text}" for rank, result in enumerate(of_ranks) for text in result.miscounted]
    return replace(worst, miscounted=wrong)


def _json(result: ModeResult) -> dict[str, Any]:
    return {
        "mode": result.mode,
        "forwards": result.forwards,
        "token_counts": result.token_counts,
        "max_error": result.max_error if math.isfinite(result.max_error) else None,  # JSON has no word for it
        "largest_logit": result.largest,
        "numerics": result.numerics,
        "bound": result.bound,
        "miscounted": result.miscounted,
        "skipped_ranges": [list(range_) for range_ in result.skipped],
        "passed": result.passed,
    }


def _print(name: str, ranks: int, results: list[ModeResult]) -> None:
    echo(styled(f"{name} on {ranks} ranks against one process", bold=True))
    for result in results:
        mark = styled("ok", "green") if result.passed else styled("FAILED", "red")
        counts = ", ".join(map(str, result.token_counts))
        echo(
            f"  {result.mode:14} ",
            mark,
            f"  max logit error {result.max_error:.2e}, allowed {result.bound:.2e} ("
            f"{result.numerics}); {result.forwards} forwards at {counts} tokens",
        )
        planned = "every op ran as often as the file says" if not result.miscounted else "ops differ from the file:"
        echo(f"  {'':14} {planned}")
        for text in result.miscounted[:10]:
            echo(f"    {text}")
        if result.skipped:
            ranges = ", ".join(f"{first}-{last}" for first, last in result.skipped)
            echo(f"  {'':14} not run: {ranges} tokens (--max-tokens reaches them)")
