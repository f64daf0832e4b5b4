"""`commplan verify`: a plan's predictions against this machine, and the plan against its rivals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from ..strategy.command_line.option_types import FILLED, Count
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..backtest.judging import Boundary, Contest, Outcome
    from ..descriptions.setup import Setup
    from ..strategy.file import StrategyFile

_LOSES = 1.02  # a regret that is surely above it means that the plan should be redone


@click.command("verify", short_help="Measure a plan on this machine: its predictions, and its rivals.")
@click.argument("strategy", type=FILLED)
@click.option("--deployment", type=FILLED, help="What the plan was made for (default: the preset that the file names).")
@click.option(
    "--mode", "modes", type=FILLED, multiple=True, help="Forward mode (default: all of the plan). Repeatable."
)
@click.option("--tokens", help="Token counts, as in 1,100,4096 (default: a dozen over each mode's span).")
@click.option("--rounds", type=Count(3, 10_000), default=11, show_default=True, help="Interleaved rounds.")
@click.option("--force", is_flag=True, help="Go on where the plan's calibration is of another machine.")
@click.option("--details", is_flag=True, help="Print every boundary.")
@options.overrides
@options.as_json
def command(
    strategy: str,
    deployment: str | None,
    modes: tuple[str, ...],
    tokens: str | None,
    rounds: int,
    force: bool,
    details: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the boundaries of the plan in STRATEGY on this machine, beside those of every legal uniform strategy.

    A uniform strategy has the cheapest impls that it may; all-reduce by the library alone is a rival of its own.

    Prints predicted and measured time of the boundaries of a forward, and the regret: the plan's step over that of the
    best alternative measured. On GPUs times are those of CUDA graphs.
    """
    from ..answers.made_for import made_for
    from ..backtest.judging import contests, judge
    from ..strategy.file import load

    chosen = load(strategy)
    known = made_for(chosen, strategy, deployment, overrides)
    setup = known.setup
    if not as_json:
        options.print_notes(setup, known.notes)
    found: list[Contest] = []
    for mode in modes or tuple(chosen.modes):
        found += contests(setup, chosen, mode, _counts(chosen, mode, tokens), strategy)
    samples = _measured(setup, found, rounds, force)
    boundaries: list[Boundary] = []
    outcomes: list[Outcome] = []
    for contest, by_plan in zip(found, samples, strict=True):
        some, outcome = judge(setup, contest, by_plan)
        boundaries += some
        outcomes.append(outcome)
    if as_json:
        _print_json(boundaries, outcomes, [*setup.notes, *known.notes])
    else:
        _print(boundaries, outcomes, details)


def _counts(chosen: StrategyFile, mode: str, tokens: str | None) -> list[int]:
    from ..strategy.errors import InputError

    ranges = chosen.modes.get(mode)
    if ranges is None:
        raise InputError(f"the plan has {', '.join(chosen.modes)}", field="--mode", value=mode)
    first, last = ranges[0].first, ranges[-1].last
    if tokens is None:
        steps = 12
        grid = {round(first * (last / first) ** (i / (steps - 1))) for i in range(steps)}
        return sorted(grid)
    try:
        counts = sorted({int(text) for text in tokens.split(",")})
    except ValueError:
        raise InputError("token counts are written 1,100,4096", field="--tokens", value=tokens) from None
    outside = next((count for count in counts if not first <= count <= last), None)
    if outside is not None:
        raise InputError(f"{mode} is planned for {first} to {last} tokens", field="--tokens", value=outside)
    return counts


def _measured(setup: Setup, found: list[Contest], rounds: int, force: bool) -> list[dict[str, Any]]:
    """By contest, plan and boundary: the slowest rank's samples, round by round."""
    import_module("commplan.runtime.bound.host").check_host(setup.hardware.backend, setup.parallelism.tp)
    boundaries = import_module("commplan.runtime.calibration.boundaries")
    run_ranks = import_module("commplan.runtime.ranks.spawning").run_ranks
    cases = [boundaries.Case(c.mode, c.tokens, c.files, setup.model.latent_widths) for c in found]
    prints = [
        c.calibration.fingerprint
        for c in setup.calibrations
        if c.calibration.fingerprint and c.transferred_because is None
    ]
    ranks = setup.parallelism.tp
    echo(f"Measuring {len(cases)} token counts on {ranks} ranks over {setup.hardware.backend}", err=True)
    by_rank = run_ranks(boundaries.measure_plans, ranks, cases, rounds, 3, prints, force, timeout_s=1200.0)
    result = []
    for same in zip(*(rank["cases"] for rank in by_rank), strict=True):
        result.append(
            {
                name: {
                    key: [max(times) for times in zip(*(rank[name][key] for rank in same), strict=True)] for key in keys
                }
                for name, keys in same[0].items()
            }
        )
    return result


def _print_json(boundaries: list[Boundary], outcomes: list[Outcome], notes: list[str]) -> None:
    from ..backtest.judging import errors_of
    from .output import print_json

    middle, high = errors_of(boundaries)
    print_json(
        {
            "boundary_error": {"points": len(boundaries), "median": middle, "p95": high},
            "boundaries": [{**b._asdict(), "error": b.error} for b in boundaries],
            "outcomes": [o._asdict() for o in outcomes],
            "notes": notes,
        }
    )


def _print(boundaries: list[Boundary], outcomes: list[Outcome], details: bool) -> None:
    from ..backtest.judging import errors_of
    from .output import duration, heading, table

    heading("Boundaries of a forward: the plan's predicted and measured time, and its best rival")
    rows = [
        [
            o.mode,
            str(o.tokens),
            duration(o.predicted_us),
            duration(o.measured_us),
            f"{o.predicted_us / o.measured_us - 1:+.1%}",
            o.alternative,
            f"{o.regret:.3f}x",
            f"{o.low:.3f} to {o.high:.3f}",
        ]
        for o in outcomes
    ]
    columns = ["mode", "tokens", "predicted", "measured", "error", "best rival", "regret", "95 % of its median"]
    table(columns, rows, "lrrrrlrr")
    if details:
        echo()
        heading("Every distinct boundary, us")
        table(
            ["mode", "tokens", "plan", "boundary", "op", "times", "predicted", "measured", "error"],
            [_row(b) for b in boundaries],
            "lrlllrrrr",
        )
    middle, high = errors_of(boundaries)
    echo()
    echo(f"Error of {len(boundaries)} boundary times: median {middle:.1%}, 95th percentile {high:.1%}.")
    losing = [o for o in outcomes if o.low > _LOSES]
    for o in losing:
        echo(f"{o.mode} at {o.tokens} tokens: {o.alternative} is surely faster, by {o.regret - 1:.1%} of a step.")
    if losing:
        echo("This plan should be redone: calibrate this machine (commplan calibrate), and plan again.")
    else:
        echo(f"No rival is surely more than {_LOSES - 1:.0%} of a step faster: the plan stands.")


def _row(b: Boundary) -> list[str]:
    times = [f"{b.predicted_us:.1f}", f"{b.measured_us:.1f}", f"{b.error:+.1%}"]
    return [b.mode, str(b.tokens), b.plan, b.boundary, b.op, str(b.times), *times]
