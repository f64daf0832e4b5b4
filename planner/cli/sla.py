"""`commplan what-if --ttft-ms --itl-ms`: the largest load and the fewest devices that keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..strategy.command_line.option_types import Count, Milliseconds

if TYPE_CHECKING:
    from ..descriptions.setup import Setup

_LIMITS = (
    click.option("--ttft-ms", type=Milliseconds(), help="Time to first token that is to be kept: asks for the load."),
    click.option("--itl-ms", type=Milliseconds(), help="Time between tokens that is to be kept: asks for the load."),
    click.option(
        "--requests",
        type=Count(1, 2**20),
        help="With these: so many requests decode at once on the fewest devices (default: 1).",
    ),
)


def limits(command: Any) -> Any:
    """The options of the limits."""
    for option in reversed(_LIMITS):
        command = option(command)
    return command


def answer(
    base: Setup,
    deployment: str,
    overrides: tuple[str, ...],
    ttft_ms: float | None,
    itl_ms: float | None,
    requests: int | None,
    as_json: bool,
) -> None:
    """Print the largest load and the fewest devices; InputError with what is missing."""
    from ..descriptions.loader import load_setup
    from ..strategy.command_line.terminal import echo, print_json
    from ..strategy.errors import InputError
    from ..what_if.rows import sweep_json
    from ..what_if.sla import Limits, by_devices, loads_of, missing
    from ..what_if.sla_answers import devices_answer, load_answer, notes
    from .output import heading, print_wrapped

    asked = Limits(_us(ttft_ms), _us(itl_ms), requests or 1)
    if lacks := missing(base, asked):
        raise InputError("; ".join(lacks), file=base.file, field="modes", kind="missing_key")

    def load(*texts: str) -> Setup:
        return load_setup(deployment, (*overrides, *texts))

    loads = loads_of(base, asked)
    answers = [load_answer(asked, loads), devices_answer(asked, list(by_devices(base, asked, load)), base)]
    said = [*base.notes, *notes(base, asked, loads)]
    if as_json:
        print_json(sweep_json([], [], answers, said))
        return
    p = base.parallelism
    stages = f" x PP {p.pp}" if p.pp > 1 else ""
    heading(f"{base.deployment.name}: {base.model.name} on {base.hardware.name}, TP {p.tp}{stages}")
    for each in answers:
        print_wrapped(f"  {each.question} {each.answer[0].upper()}{each.answer[1:]}.", "    ")
    echo()
    for note in said:
        print_wrapped(f"{note[0].upper()}{note[1:]}.", "  ")


def _us(ms: float | None) -> float | None:
    return None if ms is None else ms * 1000
