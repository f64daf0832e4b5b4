"""`commplan plan`: a deployment in, a strategy file out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import OutputFile
from ..strategy.command_line.terminal import echo
from ..strategy.files import shown
from . import options

if TYPE_CHECKING:
    from commplan import Plan

    from ..answers.experts import Experts
    from ..strategy.file import RangePlan, StrategyFile
    from ..strategy.file.document import Predicted

SHOWN_SHARE = 0.005  # of a step in which the device waits for the host


@click.command("plan", short_help="Find the cheapest legal plan of a deployment and write its strategy file.")
@click.argument("deployment", type=options.DEPLOYMENT)
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
    from commplan import plan

    from ..answers.experts import compare_experts
    from .experts import experts_line
    from .output import print_wrapped
    from .trust import print_trusts

    found = plan(deployment, set=overrides, require_fit=require_fit, on_note=None if as_json else options.print_note)
    if not as_json:  # looked at before anything is written
        _warn(found)
    if cross_check:
        _cross_check(found)
    if output is not None:
        found.save(output)
    counts = [(mode, r.last) for mode, ranges in found.strategy.modes.items() for r in ranges]
    experts = compare_experts(found.setup, counts) if as_json or not brief else None
    if as_json:
        _print_json(found, output, experts)
    else:
        _print(found.strategy)
        if not brief:
            _print_notes(found)
            if experts is not None:
                print_wrapped(experts_line(experts, found.setup), "  ")
            print_trusts(found)
        echo()
        echo(f"Written to {shown(output)}" if output else "Nothing written: name a file with -o.")


def _warn(found: Plan) -> None:
    """On standard error, where the devices have no memory for it, wire formats do nothing, or nobody has run what it
    names (JSON holds all three)."""
    from ..fit.words import does_not_fit
    from ..search.formats import warnings

    warned = warnings(found.setup)
    for note in found.notes:
        if note not in found.setup.notes and note not in warned:  # those were said when they were read
            options.print_note(note)
    for warning in warned:
        options.print_warning(warning)
    if not found.fits:
        options.print_warning(does_not_fit(found.setup, found.fit).message)


def _cross_check(found: Plan) -> None:
    from ..search.cross_check import cross_check
    from ..search.planning import ModePlanner

    checked = 0
    for mode, ranges in found.strategy.modes.items():
        planner = ModePlanner(found.setup, mode)
        for tokens in sorted({count for plan in ranges for count in (plan.first, plan.last)}):
            ours, theirs = cross_check(planner, tokens)
            if ours != theirs:
                raise RuntimeError(f"the search is wrong at {tokens} tokens of {mode}: {ours} against {theirs}")
            checked += 1
    echo(f"networkx finds the same cheapest step at {checked} token counts.", err=True)


def _print_json(found: Plan, output: str | None, experts: Experts | None) -> None:
    from ..backtest.plan_trust import trust_json
    from .experts import experts_json
    from .output import print_json

    print_json(
        {
            "strategy_file": output,
            "numerics": found.strategy.numerics,
            "hash": found.hash,
            "notes": list(found.notes),
            "memory": found.memory,
            "experts": experts_json(experts),
            "modes": {
                mode: [_range_json(each.ops) | {"trust": trust_json(each.trust)} for each in found.ranges(mode)]
                for mode in found.modes
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
        "perplexity_rise": predicted.perplexity_rise,
    }


def _print(strategy: StrategyFile) -> None:
    from .gains import print_faster_rivals, yardsticks
    from .output import heading, print_wrapped

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
    print_wrapped(f"Gains are steps over the plan's: {yardsticks(strategy.executor, strategy.hardware.backend)}.", "  ")


def _print_notes(found: Plan) -> None:
    from ..fit.words import line
    from .output import print_wrapped, span

    strategy, tolerance = found.strategy, found.setup.deployment.search.range_tolerance
    planned = [(mode, plan, plan.predicted) for mode, ranges in strategy.modes.items() for plan in ranges]
    beyond = [(mode, plan, known.worst_loss) for mode, plan, known in planned if known and known.worst_loss > tolerance]
    echo("Times and ratios are at the last token count of each range.")
    if _uniform_is_ahead(strategy, tolerance):
        why = f"one plan serves a whole range, and may lose {tolerance:.2%} (search.range_tolerance)"
        more = "; some lose more, as said below" if beyond else ""
        print_wrapped(f"Where a uniform strategy is ahead: {why}{more}.", "  ")
    pushed = ", and where rows are pushed" if strategy.pushes_rows else ""
    echo(f"No overlap of communication is assumed, but in flags of a server that have it{pushed}.")
    if any(known is not None and known.host_wait_us >= SHOWN_SHARE * known.step_us for _, _, known in planned):
        echo("A share for the host: so much of the step the device waits for eager launches.")
    for mode in sorted({mode for mode, rival in strategy.faster_rivals if rival.flag is None}):
        if _is_eager_beside_graphs(found, mode):
            why = f"The stock server replays graphs in {mode}, and the plan's kernels are launched one by one"
            way = f"Where they run from graphs too, say so: --set modes.{mode}.launch=graph"
            print_wrapped(f"{why}: that alone can make it slower in short forwards. {way}.", "  ")
    for mode, plan, loss in beyond:
        where = f"{mode} {span(plan.first, plan.last)}"
        why = " (numerics.batch_invariant)" if found.setup.deployment.numerics.batch_invariant else ""
        echo(f"{where}: some counts lose up to {loss:.1%} against a plan of their own{why}.")
    _print_sums(found)
    print_wrapped(f"{line(found.fit)}.", "  ")


def _print_sums(found: Plan) -> None:
    """Which sums are kept exact and why, where a sensitivity file is given; ranges that say the same are one line."""
    from ..answers.kept_exact import kept_exact
    from .output import print_wrapped, span

    told: dict[tuple[str, str], list[RangePlan]] = {}
    for mode, plan in [(mode, plan) for mode, ranges in found.strategy.modes.items() for plan in ranges]:
        kept = kept_exact(found.setup, plan)
        if kept is not None:
            told.setdefault((mode, str(kept)), []).append(plan)
    for (mode, text), plans in told.items():
        print_wrapped(f"{mode} {', '.join(span(plan.first, plan.last) for plan in plans)}: {text}.", "  ")


def _uniform_is_ahead(strategy: StrategyFile, tolerance: float) -> bool:
    """Whether a uniform strategy leads at the end of a range, by no more than ranges are merged for."""
    found = [r.predicted for ranges in strategy.modes.values() for r in ranges]
    leads = [1 - p.best_uniform[1] / p.step_us for p in found if p is not None and p.best_uniform is not None]
    return any(0.0005 <= lead <= tolerance for lead in leads)


def _is_eager_beside_graphs(found: Plan, mode: str) -> bool:
    from ..cost.covering import graphs_up_to
    from ..cost.host import HostCosts
    from ..executors import server_of

    stock = server_of(found.setup.executor).stock
    graphs = stock.graphs if stock is not None else ()
    return HostCosts(found.setup, mode).graph_up_to < graphs_up_to(graphs, found.setup, mode)


def _print_ranges(ranges: tuple[RangePlan, ...]) -> None:
    from ..answers.describe import layer_summary
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
    return duration(predicted.step_us) + (f", {share:.0%} host" if share >= SHOWN_SHARE else "")
