"""`commplan export vllm`: what vLLM can be told from a plan, and limits for its source."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..descriptions.setup import Setup
    from ..export.settings import Difference, Told
    from ..export.vllm_source import Entry

_SERVER = "vllm"


@click.command("vllm", short_help="What vLLM can be told from a plan, and limits for its source.")
@click.argument("deployment", type=FILLED)
@click.option(
    "--strategy",
    "strategy_file",
    type=FILLED,
    help="Tell vLLM what this strategy file says, made for executor vllm, instead of a new plan.",
)
@options.overrides
@options.as_json
def command(deployment: str, strategy_file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Plan DEPLOYMENT (a preset or a path) with what vLLM 0.33 has, and say what it can be told of that plan.

    One limit up to which sums are fused with the norm that follows, and which kernels it shall have: whatever comes
    nearest to the plan, by its own times. Then every place where vLLM still runs something else, and, as far as this
    machine was measured, the limits by compute capability and ranks that stand in vLLM's source.
    """
    from ..descriptions.loader import load_setup
    from ..export.settings import best_setting
    from ..export.vllm_source import VllmSource
    from ..strategy.errors import InputError, NoLegalPlanError
    from ..strategy.file import load

    setup = load_setup(deployment, (f"executor={_SERVER}", *overrides))
    if setup.executor.name != _SERVER:
        why = f"vLLM is told what a plan for executor {_SERVER} says"
        raise InputError(why, file="--set", field="executor", value=setup.executor.name)
    if not as_json:
        options.print_notes(setup)
    try:
        told = best_setting(setup, None if strategy_file is None else (load(strategy_file), strategy_file))
    except NoLegalPlanError as error:
        raise setup.in_its_file(error) from None
    entries = VllmSource(setup).entries()
    if as_json:
        _print_json(setup, told, entries)
    else:
        _print(setup, told, entries)


def _arguments(setup: Setup, told: Told) -> list[str]:
    from ..export.told import row_bytes

    passes = told.setting.pass_config(row_bytes(setup))
    config = ["--compilation-config", json.dumps({"pass_config": passes})] if passes else []
    p = setup.parallelism
    experts = ["--enable-expert-parallel"] if p.ep > 1 else []  # over all ranks: the executor has no other
    return ["--tensor-parallel-size", str(p.tp), *experts, *config, *told.setting.flags]


def _print_json(setup: Setup, told: Told, entries: list[Entry]) -> None:
    from ..export.told import row_bytes
    from .output import print_json

    print_json(
        {
            "server": f"vLLM {' or '.join(setup.executor.versions or ())}",
            "compute_capability": setup.hardware.compute_capability,
            "arguments": _arguments(setup, told),
            "pass_config": told.setting.pass_config(row_bytes(setup)),
            "environment": told.setting.environment,
            "fused_tokens": told.setting.fused_tokens,
            "default_fused_tokens": told.default_tokens,
            "steps": [asdict(step) for step in told.steps],
            "differences": [asdict(d) for d in told.differences],
            "by_formula": told.by_formula,
            "unpriced": list(told.unpriced),
            "source": [_entry_json(entry) for entry in entries],
            "notes": list(setup.notes),
        }
    )


def _entry_json(entry: Entry) -> dict[str, Any]:
    from .export_entries import verdict_json

    return {
        "file": entry.file,
        "table": entry.table,
        "key": entry.key,
        "ranks": entry.ranks,
        "impl": entry.impl,
        "line": entry.line,
        "note": entry.note,
        "missing": entry.missing,
        **verdict_json(entry.verdict, entry.points, entry.sources),
    }


# ---- text ------------------------------------------------------------------------------------------------------------


def _print(setup: Setup, told: Told, entries: list[Entry]) -> None:
    from .output import duration, heading, span, table, times

    heading(
        f"{setup.model.name} on {setup.hardware.name}, TP {setup.parallelism.tp}, "
        f"compute capability {setup.hardware.compute_capability}: vLLM {' or '.join(setup.executor.versions or ())}"
    )
    echo()
    _print_told(setup, told)
    echo()
    heading("Steps, at the last token count of each range of the plan")
    rows = [
        [
            s.mode,
            span(s.first, s.last),
            duration(s.planned_us),
            times(s.default_us, s.planned_us),
            times(s.told_us, s.planned_us),
            s.source,
        ]
        for s in told.steps
    ]
    table(["mode", "tokens", "plan", "vLLM by default", "vLLM as told", "wire times"], rows, "lrrrrl")
    echo()
    _print_differences(told.differences)
    if told.unpriced:
        echo(f"  No times of {', '.join(told.unpriced)} here: where vLLM runs it, the next in its order stands in.")
    echo()
    _print_entries(entries, str(setup.hardware.compute_capability))


def _print_told(setup: Setup, told: Told) -> None:
    from .output import heading

    arguments, environment = _arguments(setup, told), told.setting.environment
    if not told.setting.num_told:
        heading("Nothing to tell: its defaults come as near to the plan as any setting")
    else:
        heading("Tell it")
    words = [*(f"{name}={value}" for name, value in environment.items()), "vllm", "serve", "MODEL", *arguments]
    echo(f"  {shlex.join(words)}")
    fused, default = told.setting.fused_tokens, told.default_tokens
    if fused == told.largest:
        echo(f"  The limit is the largest forward that was priced, {fused} tokens: it may lie higher.")
    elif fused:
        echo(f"  Sums are fused with the norm up to {fused} tokens, in every layer and mode; by default to {default}.")
    elif fused is None and default:
        echo(f"  Sums are fused with the norm up to {default} tokens by default, in every layer and mode.")
    if told.setting.num_told and told.by_formula:
        echo("  That rests on times from formula: measure those kernels before you rely on it.")


def _print_differences(differences: list[Difference]) -> None:
    from .export_entries import layers_of
    from .output import heading, span

    if not differences:
        heading("It expresses the whole plan.")
        return
    heading("What it does not express (and what that costs of a step, at the last of these tokens)")
    for d in differences:
        where = f"{d.mode} {span(*d.tokens)} tokens, {d.boundary}{layers_of(d.layers)}"
        echo(f"  {where}: planned {d.planned}, runs {d.runs} ({_cost(d.slower)})")


def _cost(slower: float) -> str:
    return f"{slower:+.2%}" if abs(slower) >= 0.00005 else "nothing"


def _print_entries(entries: list[Entry], capability: str) -> None:
    from .export_entries import print_missing, print_verdict
    from .output import heading

    heading("Limits that only its source has, by what was measured on this machine")
    if not entries:
        echo(f"  None: vLLM has no entries for compute capability {capability}.")
    for entry in entries:
        if entry.verdict is None:
            continue
        where = f"{entry.file}: {entry.table}[{entry.key}], {entry.ranks} ranks, {entry.impl}"
        print_verdict(where, entry.verdict, entry.points, entry.sources, entry.line, entry.note, entry.impl)
    print_missing([f"{entry.table}[{entry.key}], {entry.missing}" for entry in entries if entry.missing])
