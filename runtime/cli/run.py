"""`commplan run`: generate text with a checkpoint under a plan."""

from __future__ import annotations

import click

from commplan.planner.terminal import echo, echo_lines, print_json


@click.command("run", short_help="Generate text with a checkpoint under a plan.")
@click.argument("strategy")
@click.option("--model", "checkpoint", required=True, help="Checkpoint directory (Hugging Face).")
@click.option("--prompt", help="Text to go on from (needs a tokenizer in the checkpoint).")
@click.option("--tokens", "token_ids", help="Token ids to go on from, as in 1,2,3.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, help="Seconds after which the ranks are ended."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    strategy: str,
    checkpoint: str,
    prompt: str | None,
    token_ids: str | None,
    max_new_tokens: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Generate greedily with a checkpoint under the plan in STRATEGY, on as many spawned ranks as it needs."""
    from commplan.planner.strategy_file import load

    from ..errors import RefusedError
    from ..fit import check_fit
    from ..generation import generate_rank
    from ..launch import run_ranks

    plan = load(strategy)
    check_fit(plan, checkpoint)
    if (prompt is None) == (token_ids is None):
        raise RefusedError("give either --prompt or --tokens", field="--prompt")
    ids = _ids(token_ids) if token_ids is not None else None
    results = run_ranks(
        generate_rank, plan.parallelism.tp, checkpoint, strategy, prompt, ids, max_new_tokens, timeout_s=timeout
    )
    tokens, text, ops = results[0]
    if as_json:
        print_json({"tokens": tokens, "text": text, "ops": ops})
        return
    echo_lines(text if text is not None else " ".join(map(str, tokens)))
    echo("Executed: " + ", ".join(f"{calls} x {op} ({mode})" for mode, op, calls in ops), err=True)


def _ids(text: str) -> list[int]:
    from ..errors import RefusedError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RefusedError("token ids are whole numbers with commas between", field="--tokens", value=text) from None
