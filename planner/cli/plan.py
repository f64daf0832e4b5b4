"""`commplan plan`: a deployment in, a strategy file out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED, OutputFile
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..answers.experts import Experts
    from ..answers.to_file import Chosen
    from ..descriptions.setup import Setup
    from ..fit.verdict import Fit
    from ..strategy.file import RangePlan, StrategyFile
    from ..strategy.file.document import Predicted
    from .trust import Trusts


@click.command("plan", short_help="Find the cheapest legal plan of a deployment and write its strategy file.")
@click.argument("deployment", type=FILLED)
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    help="Where to write the strategy file; without it only the summary is printed.",
)
@click.option(
    "--require-fit", is_flag=True, help="Refuse a deployment that its devices have no memory for (exit code 3)."
)
@click.option("--brief", is_flag=True, help="Print the ranges alone: no memory, no trust.")
@click.option("--cross-check", is_flag=True, help="Have networkx search the ends of every range too, and compare.")
@options.overrides
@options.as_json
def command(
    deployment: str,
    output: str | None,
    require_fit: bool,
    cross_check: bool,
    brief: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the cheapest legal plan of DEPLOYMENT (a preset or a path) and write its strategy file."""
    from ..answers.experts import compare_experts
    from ..answers.to_file import plan_setup
    from ..descriptions.loader import load_setup
    from ..strategy.errors import NoLegalPlanError
    from ..strategy.file import save
    from .experts import experts_line
    from .output import print_wrapped
    from .trust import print_trusts, trusts_of

    setup = load_setup(deployment, overrides)
    if not as_json:
        options.print_notes(setup)
    try:
        found: Chosen = {}
        strategy = plan_setup(setup, found)
    except NoLegalPlanError as error:
        raise error.in_file(setup.file) from None
    memory = _memory(setup, strategy, require_fit, warns=not as_json)
    if cross_check:
        _cross_check(setup, strategy)
    if output is not None:
        save(strategy, output)
    trusts = trusts_of(found, fits=memory.fits)
    counts = [(mode, r.last) for mode, ranges in strategy.modes.items() for r in ranges]
    experts = compare_experts(setup, counts) if as_json or not brief else None
    if as_json:
        _print_json(strategy, output, setup, memory, trusts, experts)
    else:
        _print(strategy)
        if not brief:
            _print_notes(strategy, setup.deployment.search.range_tolerance, memory)
            if experts is not None:
                print_wrapped(experts_line(experts, setup), "  ")
            print_trusts(found, trusts)
        echo()
        echo(f"Written to {output}" if output else "Nothing written: name a file with -o.")


def _memory(setup: Setup, strategy: StrategyFile, required: bool, warns: bool) -> Fit:
    """Does it fit? A warning on standard error where it does not (JSON holds it); DoesNotFitError where it has to."""
    from ..fit.peaks import peak_of
    from ..fit.verdict import fit
    from ..fit.words import does_not_fit

    found = fit(setup, peak=peak_of(setup, strategy))
    if not found.fits:
        error = does_not_fit(setup, found)
        if required:
            raise error
        if warns:
            options.print_warning(error.message)
    return found


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


def _print_json(
    strategy: StrategyFile, output: str | None, setup: Setup, memory: Fit, trusts: Trusts, experts: Experts | None
) -> None:
    from ..fit.words import as_json, ways_out
    from ..strategy.file import plan_hash
    from .experts import experts_json
    from .output import print_json
    from .trust import trust_json

    print_json(
        {
            "strategy_file": output,
            "numerics": strategy.numerics,
            "hash": plan_hash(strategy),
            "notes": list(setup.notes),
            "memory": as_json(memory) | {"ways_out": [] if memory.fits else list(ways_out(setup, memory))},
            "experts": experts_json(experts),
            "modes": {
                mode: [
                    _range_json(r) | {"trust": trust_json(trust)} for r, trust in zip(ranges, trusts[mode], strict=True)
                ]
                for mode, ranges in strategy.modes.items()
            },
        }
    )


def _range_json(plan: RangePlan) -> dict[str, object]:
    from .gains import gains_json

    predicted = plan.predicted
    assert predicted is not None
    best = predicted.best_uniform
    return {
        "tokens": [plan.first, plan.last],
        "step_us": predicted.step_us,
        **gains_json(predicted),
        "all_reduce_us": predicted.all_reduce_us,
        "best_uniform": None if best is None else {"strategy": best[0], "step_us": best[1]},
        "worst_loss": predicted.worst_loss,
        "source": predicted.source,
        "host_wait_us": predicted.host_wait_us,
    }


def _print(strategy: StrategyFile) -> None:
    from .gains import print_faster_rivals, yardsticks
    from .output import heading

    p = strategy.parallelism
    attention = f", attention DP {p.attn_dp} x TP {p.attn_tp}" if p.attn_dp > 1 else ""
    print_faster_rivals(strategy)
    split = f"TP {p.tp}{f' x PP {p.pp}' if p.pp > 1 else ''}{attention}"
    heading(f"{strategy.model.name} on {strategy.hardware.name}, {split}, executor {strategy.executor}")
    for mode, ranges in strategy.modes.items():
        echo()
        heading(mode)
        _print_ranges(ranges)
    echo()
    echo(f"Gains are steps over the plan's: {yardsticks(strategy.executor, strategy.hardware.backend)}.")


def _print_notes(strategy: StrategyFile, tolerance: float, memory: Fit) -> None:
    from ..fit.words import line
    from .output import print_wrapped, span

    echo("Times and ratios are at the last token count of each range.")
    echo("No overlap of communication is assumed, but in flags of a server that have it.")
    if any(r.predicted is not None and r.predicted.host_wait_us for ranges in strategy.modes.values() for r in ranges):
        echo("A share for the host: so much of the step the device waits for eager launches.")
    for mode, plan in [(mode, plan) for mode, ranges in strategy.modes.items() for plan in ranges]:
        if plan.predicted is not None and plan.predicted.worst_loss > tolerance:
            where = f"{mode} {span(plan.first, plan.last)}"
            echo(f"{where}: some counts lose up to {plan.predicted.worst_loss:.1%} against a plan of their own.")
    print_wrapped(f"{line(memory)}.", "  ")


def _print_ranges(ranges: tuple[RangePlan, ...]) -> None:
    from .describe import layer_summary
    from .gains import COLUMNS, cells
    from .output import span, table

    rows, below = [], []
    for plan in ranges:
        predicted = plan.predicted
        assert predicted is not None
        best = predicted.best_uniform
        rows.append(
            [
                span(plan.first, plan.last),
                _step(predicted),
                *cells(predicted),
                "-" if best is None else f"{best[1] / predicted.step_us:.3f}x {best[0]}",
            ]
        )
        source, stock = predicted.source, predicted.stock_source
        others = "" if stock == source else f", stock's from {stock}"
        below.append(f"{layer_summary(plan)}; wire times from {source}{others}")
    table(["tokens", "step", *COLUMNS, "vs best uniform"], rows, "rrrlrl", below)


def _step(predicted: Predicted) -> str:
    """The step time, with the share of it in which the device waits for the host."""
    from .output import duration

    share = predicted.host_wait_us / predicted.step_us
    return duration(predicted.step_us) + (f", {share:.0%} host" if share >= 0.005 else "")
