"""`commplan plan`: a deployment in, a strategy file out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED, OutputFile
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..descriptions.setup import Setup
    from ..strategy.file import RangePlan, StrategyFile
    from ..strategy.file.document import Predicted


@click.command("plan", short_help="Find the cheapest legal plan of a deployment and write its strategy file.")
@click.argument("deployment", type=FILLED)
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    help="Where to write the strategy file; without it only the summary is printed.",
)
@click.option("--cross-check", is_flag=True, help="Have networkx search the ends of every range too, and compare.")
@options.overrides
@options.as_json
def command(deployment: str, output: str | None, cross_check: bool, overrides: tuple[str, ...], as_json: bool) -> None:
    """Find the cheapest legal plan of DEPLOYMENT (a preset or a path) and write its strategy file."""
    from ..answers.to_file import plan_setup
    from ..descriptions.loader import load_setup
    from ..strategy.errors import NoLegalPlanError
    from ..strategy.file import save

    setup = load_setup(deployment, overrides)
    if not as_json:
        options.print_notes(setup)
    try:
        strategy = plan_setup(setup)
    except NoLegalPlanError as error:
        raise error.in_file(setup.file) from None
    if cross_check:
        _cross_check(setup, strategy)
    if output is not None:
        save(strategy, output)
    if as_json:
        _print_json(strategy, output, setup.notes)
    else:
        _print(strategy, output, setup.deployment.search.range_tolerance)


def _cross_check(setup: Setup, strategy: StrategyFile) -> None:
    from ..search.cross_check import cross_check
    from ..search.planning import ModePlanner

    checked = 0
    for mode, ranges in strategy.modes.items():
        planner = ModePlanner(setup, mode)
        for tokens in sorted({count for plan in ranges for count in (plan.first, plan.last)}):
            ours, theirs = cross_check(planner, tokens)
            if ours != theirs:
                raise RuntimeError(f"the search is wrong at {tokens} tokens of {mode}: {ours} against {theirs}")
            checked += 1
    echo(f"networkx finds the same cheapest step at {checked} token counts.", err=True)


def _print_json(strategy: StrategyFile, output: str | None, notes: tuple[str, ...]) -> None:
    from ..strategy.file import plan_hash
    from .output import print_json

    print_json(
        {
            "strategy_file": output,
            "numerics": strategy.numerics,
            "hash": plan_hash(strategy),
            "notes": list(notes),
            "modes": {mode: [_range_json(r) for r in ranges] for mode, ranges in strategy.modes.items()},
        }
    )


def _range_json(plan: RangePlan) -> dict[str, object]:
    predicted = plan.predicted
    assert predicted is not None
    best = predicted.best_uniform
    return {
        "tokens": [plan.first, plan.last],
        "step_us": predicted.step_us,
        "all_reduce_us": predicted.all_reduce_us,
        "best_uniform": None if best is None else {"strategy": best[0], "step_us": best[1]},
        "worst_loss": predicted.worst_loss,
        "source": predicted.source,
        "host_wait_us": predicted.host_wait_us,
    }


def _print(strategy: StrategyFile, output: str | None, tolerance: float) -> None:
    from .describe import layer_summary
    from .output import heading, span, table

    p = strategy.parallelism
    attention = f", attention DP {p.attn_dp} x TP {p.attn_tp}" if p.attn_dp > 1 else ""
    heading(f"{strategy.model.name} on {strategy.hardware.name}, TP {p.tp}{attention}, executor {strategy.executor}")
    for mode, ranges in strategy.modes.items():
        echo()
        heading(mode)
        rows = []
        for plan in ranges:
            predicted = plan.predicted
            assert predicted is not None
            best = predicted.best_uniform
            rows.append(
                [
                    span(plan.first, plan.last),
                    _step(predicted),
                    f"{predicted.all_reduce_us / predicted.step_us:.3f}x",
                    "-" if best is None else f"{best[0]} {best[1] / predicted.step_us:.3f}x",
                    predicted.source,
                    layer_summary(plan),
                ]
            )
        table(["tokens", "step", "vs all_reduce", "vs best uniform", "wire times from", "per layer"], rows, "rrrlll")
    echo()
    echo("Times and ratios are at the last token count of each range; no overlap of communication is assumed.")
    if any(r.predicted is not None and r.predicted.host_wait_us for ranges in strategy.modes.values() for r in ranges):
        echo("A share for the host: so much of the step the device waits for eager launches.")
    for mode, plan in [(mode, plan) for mode, ranges in strategy.modes.items() for plan in ranges]:
        if plan.predicted is not None and plan.predicted.worst_loss > tolerance:
            where = f"{mode} {span(plan.first, plan.last)}"
            echo(f"{where}: some counts lose up to {plan.predicted.worst_loss:.1%} against a plan of their own.")
    echo(f"Written to {output}" if output else "Nothing written: name a file with -o.")


def _step(predicted: Predicted) -> str:
    """The step time, with the share of it in which the device waits for the host."""
    from .output import duration

    share = predicted.host_wait_us / predicted.step_us
    return duration(predicted.step_us) + (f", {share:.0%} host" if share >= 0.005 else "")
