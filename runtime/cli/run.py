"""`commplan run`: generate text with a checkpoint under a plan."""

from __future__ import annotations

from typing import Any

import click

from commplan.planner.strategy.command_line.option_types import FILLED, TOKENS, Seconds
from commplan.planner.strategy.command_line.terminal import echo, echo_lines, print_json


@click.command("run", short_help="Generate text with a checkpoint under a plan.")
@click.argument("strategy", type=FILLED)
@click.option("--model", "checkpoint", type=FILLED, required=True, help="Checkpoint directory (Hugging Face).")
@click.option("--prompt", help="Text to go on from (needs a tokenizer in the checkpoint).")
@click.option("--tokens", "token_ids", help="Token ids to go on from, as in 1,2,3.")
@click.option("--max-new-tokens", type=TOKENS, default=16, show_default=True)
@click.option(
    "--timeout", type=Seconds(), default=600.0, show_default=True, help="Seconds after which the ranks are ended."
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
    from commplan.planner.strategy.file import load

    from ..bound.host import check_host
    from ..errors import RefusedError
    from ..ranks.spawning import run_ranks
    from ..transformers.checkpoint_fit import check_fit, text_of
    from ..transformers.generation import encoded, generate_rank, load_tokenizer

    if (prompt is None) == (token_ids is None):
        raise RefusedError("give either --prompt or --tokens", field="--prompt")
    ids = _ids(token_ids) if token_ids is not None else []
    plan = load(strategy)
    try:
        config, _ = check_fit(plan, checkpoint)
    except RefusedError as error:
        raise error.in_file(strategy) from None
    if token_ids is not None:
        _check_ids(ids, text_of(config), "--tokens")
    check_host(plan.hardware.backend, plan.parallelism.tp, models=True)
    tokenizer = None
    if prompt is not None:
        tokenizer = load_tokenizer(checkpoint)
        ids = encoded(tokenizer, prompt)
        _check_ids(ids, text_of(config), "--prompt")
    results = run_ranks(
        generate_rank, plan.parallelism.tp, checkpoint, strategy, ids, max_new_tokens, timeout_s=timeout
    )
    tokens, ops = results[0]
    text = tokenizer.decode(tokens) if tokenizer is not None else None
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


def _check_ids(ids: list[int], config: dict[str, Any], option: str) -> None:
    from ..errors import RefusedError

    vocab = config.get("vocab_size")
    if not isinstance(vocab, int):  # whoever loads the checkpoint says what is wrong with it
        return
    outside = next((token for token in ids if not 0 <= token < vocab), None)
    if not ids or outside is not None:
        raise RefusedError(f"at least one token id, each from 0 to {vocab - 1}, is needed", field=option, value=outside)
