"""`commplan sensitivity`: what quantised sums do to a checkpoint's loss, layer by layer, for a budget of perplexity."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from commplan.planner.strategy.command_line.option_types import FILLED, TOKENS, Count, OutputFile
from commplan.planner.strategy.command_line.terminal import echo, print_json
from commplan.planner.strategy.files import shown

if TYPE_CHECKING:
    from ..sensitivity.measure import PlaceResult
    from ..sensitivity.session import Session

DEFAULT_WIRES = ("int8/token", "int8/64", "fp8_e4m3/token")


@click.command("sensitivity", short_help="Measure what quantised sums do to a checkpoint's loss, layer by layer.")
@click.argument("checkpoint", metavar="MODEL", type=FILLED)
@click.option("--text", type=FILLED, required=True, help="Text on which the loss is measured (UTF-8).")
@click.option("-o", "--output", type=OutputFile(), help="Sensitivity file to write; it must be named.")
@click.option("--ranks", type=Count(2, 64), default=2, show_default=True, help="Tensor-parallel ranks of the plan.")
@click.option(
    "--wire",
    "wires",
    type=FILLED,
    multiple=True,
    metavar="WIRE/GROUP",
    help=f"Format to measure, as in int8/64. Repeatable; {', '.join(DEFAULT_WIRES)} unless named.",
)
@click.option("--gather", is_flag=True, help="Measure gathers too; else they count as two shots do, which lose more.")
@click.option("--tokens", type=TOKENS, default=4096, show_default=True, help="Tokens of the text to use, at most.")
@click.option("--window", type=Count(2, 2**20), default=512, show_default=True, help="Tokens of a sequence.")
@click.option("--batch", type=Count(1, 4096), default=4, show_default=True, help="Sequences of a forward.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    checkpoint: str,
    text: str,
    output: str | None,
    ranks: int,
    wires: tuple[str, ...],
    gather: bool,
    tokens: int,
    window: int,
    batch: int,
    as_json: bool,
) -> None:
    """Quantise one sum of MODEL (a checkpoint directory) at a time and measure what the loss on a text rises by.

    The partial sums of --ranks ranks are emulated in one process, on a GPU where there is one. Results are kept in
    OUTPUT.partial after each sum: an interrupted call goes on from there.
    """
    from ..errors import RefusedError
    from ..sensitivity.session import Session, ops_of

    if output is None:
        raise RefusedError("name the file to write: results are kept beside it too", field="--output")
    ops = ops_of(wires or DEFAULT_WIRES, gather)
    session = Session(checkpoint, text, output, ranks, ops, tokens, window, batch)
    if session.record.known:
        echo(f"Going on from {shown(str(session.record.file))}: {len(session.record.known)} sums are known.", err=True)
    began, done = time.monotonic(), len(session.record.known)
    for place, result in session.measure():
        left = (
            (time.monotonic() - began) / (len(session.record.known) - done) * (session.sums - len(session.record.known))
        )
        echo(
            _line(session, place, result),
            f"; {len(session.record.known)} of {session.sums}, {left:.0f} s left",
            err=True,
        )
    session.save()
    if as_json:
        print_json({"sensitivity_file": output, "perplexity": session.perplexity, "rises": session.rises()})
        return
    echo(f"Perplexity {session.perplexity:.4f} exact, {session.tokens} tokens, {ranks} ranks emulated.")
    for name, rise in session.rises().items():
        echo(f"  {name:28} {rise:+.3%} predicted with every sum so")
    echo(f"Written to {shown(output)}: name it as numerics.sensitivity, and a numerics.perplexity_budget.")


def _line(session: Session, place: tuple[int, str], result: PlaceResult) -> str:
    effects = ", ".join(f"{name} {each.loss:+.2e}" for name, each in zip(session.names, result.effects, strict=True))
    return f"layer {place[0]} {place[1]}: outliers {result.outliers:.1f}, loss {effects}"
