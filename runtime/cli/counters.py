"""`commplan counters`: what a running server has executed, against its plan."""

from __future__ import annotations

import sys
from typing import Any

import click

from commplan.planner.strategy.command_line.option_types import FILLED, Seconds, ServerAddress
from commplan.planner.strategy.command_line.terminal import echo, print_json, styled


@click.command("counters", short_help="Compare what a running server has executed with its plan.")
@click.option("--server", "url", type=ServerAddress(), required=True, help="Its address, as in http://127.0.0.1:30000.")
@click.option("--strategy", type=FILLED, help="The plan's file here (default: the plan that the server sends).")
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, help="Seconds to wait for the answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(url: str, strategy: str | None, timeout: float, as_json: bool) -> None:
    """Ask an SGLang server that runs under a plan for its counts, and compare them with forwards times plan.

    Exit code 4 if an op ran that was not planned, or a planned one did not run.
    """
    from ..servers.executed import differences
    from ..servers.sglang.answer import ask

    told = ask(url, timeout)
    file = _plan(told, strategy, url)
    wrong = [differences(file, rank) for rank in told["ranks"]]
    if as_json:
        print_json(told | {"differences": wrong})
    else:
        _print(told, wrong)
    if any(wrong):
        sys.exit(4)


def _plan(told: dict[str, Any], strategy: str | None, url: str) -> Any:
    """The plan of the server: the user's file, or the text that it sends; of the hash that it runs under."""
    from commplan.planner.strategy.file import InputError, load, parse, plan_hash

    from ..errors import RefusedError
    from ..servers.executed import misfit

    try:
        file = parse(told["strategy"]) if strategy is None else load(strategy)
    except InputError as error:
        if strategy is not None:
            raise
        raise RefusedError(f"the plan that the server sends: {error}", field="--server", value=url) from None
    if plan_hash(file) != told["plan"]:
        way_out = "it sends another one" if strategy is None else "name that file with --strategy"
        raise RefusedError(
            f"is not the plan of the server, {told['plan']}; {way_out}",
            file=strategy,
            field="--server" if strategy is None else None,
            value=plan_hash(file),
        )
    if why := misfit(file, told["ranks"]):
        raise RefusedError(f"the answer does not fit its plan: {why}", field="--server", value=url)
    return file


def _print(told: dict[str, Any], wrong: list[list[str]]) -> None:
    echo(styled(f"plan {told['plan']} ({told['file']})", bold=True))
    for number, (rank, found) in enumerate(zip(told["ranks"], wrong, strict=True)):
        echo(f"rank {number}")
        for forwards in rank["forwards"]:
            first, last = forwards["tokens"]
            idle = f", {forwards['idle']} of them without rows in this DP group" if forwards["idle"] else ""
            echo(
                f"  {forwards['mode']:14} {first}-{last} tokens: {forwards['forwards']} forwards of "
                f"{forwards['rows']} tokens in all{idle}"
            )
            for line in _ops(rank, forwards["mode"]):
                echo(f"    {line}")
        mark = styled("forwards x plan", "green") if not found else styled("DIFFERENT", "red")
        echo("  executed ops: ", mark)
        for text in found[:20]:
            echo(f"    {text}")


def _ops(rank: dict[str, Any], mode: str) -> list[str]:
    """Calls of a mode by boundary and op, over all layers."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for op in rank["ops"]:
        if op["mode"] == mode:
            found = sums.setdefault((op["boundary"], op["op"], op["impl"]), [0, 0])
            found[0] += op["calls"]
            found[1] += round(op["wire_bytes"])
    return [f"{b:9} {op} by {impl}: {calls} calls, {size} bytes" for (b, op, impl), (calls, size) in sums.items()]
