"""`commplan counters`: what a running server has executed, against its plan."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from commplan.planner.option_types import FILLED, Seconds, ServerAddress


@click.command("counters", short_help="Compare what a running server has executed with its plan.")
@click.option("--server", "url", type=ServerAddress(), required=True, help="Its address, as in http://127.0.0.1:30000.")
@click.option("--strategy", type=FILLED, help="The plan's file here (default: the path that the server names).")
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, help="Seconds to wait for the answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(url: str, strategy: str | None, timeout: float, as_json: bool) -> None:
    """Ask an SGLang server that runs under a plan for its counts, and compare them with forwards times plan.

    Exit code 4 if an op ran that was not planned, or a planned one did not run.
    """
    from commplan.planner.strategy_file import load, plan_hash

    from ..errors import RefusedError
    from ..sglang.report import differences

    told = _ask(url, timeout)
    path = strategy or told["file"]
    file = load(path)
    if plan_hash(file) != told["plan"]:
        raise RefusedError(
            f"is not the plan of the server, {told['plan']}; name that file with --strategy",
            file=path,
            value=plan_hash(file),
        )
    wrong = [differences(file, rank) for rank in told["ranks"]]
    if as_json:
        click.echo(json.dumps(told | {"differences": wrong}))
    else:
        _print(told, wrong)
    if any(wrong):
        sys.exit(4)


def _ask(url: str, timeout_s: float) -> dict[str, Any]:
    from urllib.error import URLError
    from urllib.request import urlopen

    from ..errors import RefusedError

    if not url.startswith(("http://", "https://")):
        raise RefusedError("http://HOST:PORT is expected", field="--server", value=url)
    try:
        with urlopen(url.rstrip("/") + "/server_info", timeout=timeout_s) as answer:
            info = json.load(answer)
    except (URLError, OSError, ValueError) as error:
        raise RefusedError(f"no answer from an SGLang server: {error}", field="--server", value=url) from None
    states = info.get("internal_states") if isinstance(info, dict) else None
    told = states[0].get("commplan") if states else None
    if told is None:
        raise RefusedError(
            "the server runs without a plan; start it with commplan launch sglang", field="--server", value=url
        )
    result: dict[str, Any] = told
    return result


def _print(told: dict[str, Any], wrong: list[list[str]]) -> None:
    click.secho(f"plan {told['plan']} ({os.path.basename(told['file'])})", bold=True)
    for number, (rank, found) in enumerate(zip(told["ranks"], wrong, strict=True)):
        click.echo(f"rank {number}")
        for forwards in rank["forwards"]:
            first, last = forwards["tokens"]
            idle = f", {forwards['idle']} of them without rows in this DP group" if forwards["idle"] else ""
            click.echo(
                f"  {forwards['mode']:14} {first}-{last} tokens: {forwards['forwards']} forwards of "
                f"{forwards['rows']} tokens in all{idle}"
            )
            for line in _ops(rank, forwards["mode"]):
                click.echo(f"    {line}")
        mark = click.style("forwards x plan", fg="green") if not found else click.style("DIFFERENT", fg="red")
        click.echo(f"  executed ops: {mark}")
        for text in found[:20]:
            click.echo(f"    {text}")


def _ops(rank: dict[str, Any], mode: str) -> list[str]:
    """Calls of a mode by boundary and op, over all layers."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for op in rank["ops"]:
        if op["mode"] == mode:
            found = sums.setdefault((op["boundary"], op["op"], op["impl"]), [0, 0])
            found[0] += op["calls"]
            found[1] += round(op["wire_bytes"])
    return [f"{b:9} {op} by {impl}: {calls} calls, {size} bytes" for (b, op, impl), (calls, size) in sums.items()]
