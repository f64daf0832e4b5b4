"""`commplan explain`: why this op here, and what would the others cost?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED, LAYER, TOKENS
from ..strategy.command_line.terminal import echo, styled
from . import options

if TYPE_CHECKING:
    from ..answers.explanation import Explanation, Option
    from ..descriptions.setup import Setup
    from ..strategy.command_line.terminal import Cell
    from ..strategy.ops import Op


@click.command("explain", short_help="Say why an op was chosen at a boundary, and what every other one would cost.")
@click.argument("deployment", type=options.DEPLOYMENT, required=False)
@click.option("--mode", type=FILLED, help="Forward mode (default: the first of the deployment).")
@click.option("--tokens", type=TOKENS, help="Token count (default: the largest of the mode).")
@click.option("--layer", type=LAYER, help="Layer number (default: the middle layer; none for embed_out and head_in).")
@click.option(
    "--boundary",
    default="attn_out",
    show_default=True,
    help="attn_in, attn_out, mlp_in, mlp_out, embed_out or head_in.",
)
@click.option("--op", "only_op", help="Show this op alone beside the chosen one, as in int8_all_reduce.")
@click.option(
    "--strategy",
    "strategy_file",
    type=FILLED,
    help="Explain the choices of this strategy file instead of a new plan's. It knows its executor and overrides; "
    "DEPLOYMENT is needed where what it was made for is no preset.",
)
@options.overrides
@options.as_json
def command(
    deployment: str | None,
    mode: str | None,
    tokens: int | None,
    layer: int | None,
    boundary: str,
    only_op: str | None,
    strategy_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say why an op was chosen in DEPLOYMENT (a preset or a path), and what every other one would cost.

    An alternative is judged by the chosen plan with this one op exchanged, and the fewest changes that layouts demand.
    """
    from commplan import explain

    found = explain(
        deployment,
        mode=mode,
        tokens=tokens,
        layer=layer,
        boundary=boundary,
        op=only_op,
        strategy=strategy_file,
        set=overrides,
    )
    if as_json:
        _print_json(found.details, found.notes)
    else:
        for note in found.notes:
            options.print_note(note)
        _print(found.setup, found.details, found.first, found.last)
        setup, at = found.setup, found.details
        if at.boundary in ("mlp_in", "mlp_out") and setup.model.mlp_kind(at.layer or 0) == "moe":
            _print_experts(setup, at.mode, at.tokens)


# ---- output ----------------------------------------------------------------------------------------------------------


def _option_json(option: Option, boundary: str) -> dict[str, object]:
    from ..strategy.ops import spell

    return {
        "ops": {boundary: spell(option.op)},
        "impl": option.impl,
        "numerics": option.numerics,
        "legal": option.legal,
        "reason": option.reason,
        "time_us": option.time_us,
        "breakdown": option.breakdown,
        "wire_contains": list(option.wire_contains),
        "source": option.source,
        "step_us": option.step_us,
        "slower_by_us": option.slower_by_us,
        "layer_ops": option.neighbours,
    }


def _print_json(explanation: Explanation, notes: tuple[str, ...]) -> None:
    from ..strategy.ops import spell
    from .gains import prices_json
    from .output import print_json

    print_json(
        {
            "mode": explanation.mode,
            "tokens": explanation.tokens,
            "layer": explanation.layer,
            "boundary": explanation.boundary,
            "chosen": _option_json(explanation.chosen, explanation.boundary),
            "alternatives": [_option_json(o, explanation.boundary) for o in explanation.alternatives],
            **prices_json(explanation.held_against),
            "stock": [
                {
                    "flag": stock.flag or None,
                    "ops": {explanation.boundary: spell(stock.op)},
                    "impl": stock.impl,
                    "time_us": stock.time_us,
                    "provenance": stock.provenance,
                }
                for stock in explanation.stock_ops
            ],
            "launch": explanation.launch,
            "host_wait_us": explanation.host_wait_us,
            "compute_factor": explanation.compute_factor,
            "notes": list(notes),
        }
    )


def _print(setup: Setup, explanation: Explanation, first: int, last: int) -> None:
    from ..strategy.ops import NONE
    from .gains import faster_here
    from .output import duration, heading, span, table

    chosen = explanation.chosen
    if chosen.step_us is not None:
        for line in faster_here(explanation.held_against, chosen.step_us, explanation.mode, explanation.tokens):
            echo(styled(line, "yellow", bold=True))
    where = explanation.boundary if explanation.layer is None else f"layer {explanation.layer} {explanation.boundary}"
    heading(f"{setup.deployment.name}: {explanation.mode}, {explanation.tokens} tokens, {where}")
    echo(f"Chosen for {span(first, last)} tokens: ", styled(_label(chosen.op), "green", bold=True))
    if chosen.neighbours:
        others = ", ".join(
            f"{b} {op}" for b, op in chosen.neighbours.items() if op != str(NONE) and b != explanation.boundary
        )
        echo(f"With it in this layer: {others or 'no other op'}")
    if chosen.step_us is not None:
        echo(f"Whole step: {duration(chosen.step_us)}{_waits(explanation)}")
        if explanation.compute_factor != 1.0:
            factor = explanation.compute_factor
            echo(f"By the measured step, GEMMs and attention take {factor:.2f} times as long as modelled")
        _print_stock(setup, explanation, chosen.step_us)
    echo(f"Wire time from {chosen.source}" if chosen.source else "No wire time")
    p, layer = setup.parallelism, explanation.layer
    if explanation.boundary == "mlp_out" and layer is not None and p.ends_stage(layer, setup.model.num_hidden_layers):
        echo("The layer ends a pipeline stage: wire times hold the hand-over of both streams to the next one")
    echo()
    rows = [_row(o) for o in [chosen, *explanation.alternatives] if o.time_us is not None]
    heading("Time at this boundary, us (the last column is about the whole step)")
    columns = [
        "op",
        "impl",
        "numerics",
        "wire",
        "quantise",
        "norm",
        "residual",
        "latent GEMM",
        "padding",
        "launches",
        "total",
        "",
    ]
    table(columns, rows, "lllrrrrrrrrl")
    for note in _one_kernel_notes([chosen, *explanation.alternatives]):
        echo(f"  {note}")
    refused = [o for o in explanation.alternatives if o.time_us is None]
    if refused:
        echo()
        heading("Not possible here")
        table(["op", "because"], [[_label(o.op), o.reason] for o in refused])


def _print_experts(setup: Setup, mode: str, tokens: int) -> None:
    """Around experts over several ranks: what the other backend would make of it."""
    from ..answers.experts import compare_experts
    from .experts import experts_line
    from .output import print_wrapped

    experts = compare_experts(setup, [(mode, tokens)])
    if experts is not None:
        echo()
        print_wrapped(experts_line(experts, setup), "  ")


def _print_stock(setup: Setup, explanation: Explanation, step_us: float) -> None:
    """The gains of the whole step, and what the stock server runs at this boundary."""
    from .gains import sentence, server_name

    echo(f"Gain: {sentence(explanation.held_against, step_us, setup.hardware.backend)}")
    for stock in explanation.stock_ops:
        who = f"With {stock.flag}" if stock.flag else f"The stock server here ({server_name(setup.executor.name)})"
        by = f" by {stock.impl}" if stock.impl else ""
        echo(f"{who}: {replace(stock.op, impl=None)}{by}, {stock.time_us:.1f} us ({stock.provenance})")


def _waits(explanation: Explanation) -> str:
    """What is said of a step in which the device waits for the host."""
    if not explanation.host_wait_us:
        return ""
    from .output import duration

    return f", of which the device waits {duration(explanation.host_wait_us)} for eager launches of the host"


def _one_kernel_notes(options: list[Option]) -> list[str]:
    """Where an op is one kernel, what its wire time contains."""
    words = {"quantize": "quantisation", "norm": "residual add and norm"}
    notes = []
    for o in options:
        inside = ", ".join(words[part] for part in o.wire_contains)
        if inside:
            notes.append(f"{o.op.name} by {o.impl} is one kernel: its wire time contains {inside}")
    return list(dict.fromkeys(notes))


def _label(op: Op) -> str:
    return str(op)


def _row(option: Option) -> list[Cell]:
    numbers = [f"{option.breakdown[f'{name}_us']:.1f}" for name in _COLUMNS]
    mark: Cell = option.reason if option.legal else (styled("not allowed: ", "yellow"), option.reason)
    return [_label(option.op), option.impl or "-", option.numerics, *numbers, f"{option.time_us:.1f}", mark]


_COLUMNS = ("wire", "quantize", "norm", "residual", "latent_gemm", "padding", "launches")
