"""`commplan export sglang-table`: limits of SGLang's own all-reduce, for its environment and for its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..descriptions.setup import Setup
    from ..export.sglang_source import SglangTable

_NOT_EXPRESSED = (
    "Which of its five algorithms takes a message: tables here are of the kernel as it chose by itself, so the limits "
    "between them stay",
    "`eager=`: tables are of CUDA graphs, so those limits stay as well, under the same cap",
    "One limit for every layer, boundary and mode, and none that knows of a norm that could be fused",
)


@click.command("sglang-table", short_help="Limits of SGLang's own all-reduce, for its environment and its source.")
@click.argument("deployment", type=FILLED)
@options.overrides
@options.as_json
def command(deployment: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say up to which message SGLang 0.5.23's all-reduce v2 pays on the machine of DEPLOYMENT (a preset or a path).

    As the environment variable of a server of this deployment, and as entries of SGLang's table for every group size
    that was measured. NCCL takes what lies above.
    """
    from ..descriptions.loader import load_setup
    from ..export.sglang_source import sglang_table

    setup = load_setup(deployment, ("executor=plan_only", *overrides))  # it loads any model: none is looked at
    if not as_json:
        options.print_notes(setup)
    found = sglang_table(setup)
    if as_json:
        _print_json(setup, found)
    else:
        _print(setup, found)


def _print_json(setup: Setup, found: SglangTable) -> None:
    from ..export.sglang_source import FILE
    from .export_entries import verdict_json
    from .output import print_json

    print_json(
        {
            "file": FILE,
            "function": found.function,
            "arguments": found.arguments,
            "environment": found.environment,
            "entries": [
                {
                    "ranks": e.ranks,
                    "max_size_kb": e.cap_kb,
                    "line": e.line,
                    "note": e.note,
                    "missing": e.missing,
                    **verdict_json(e.verdict, e.points, e.sources),
                }
                for e in found.entries
            ],
            "not_expressed": list(_NOT_EXPRESSED),
            "notes": list(setup.notes),
        }
    )


def _print(setup: Setup, found: SglangTable) -> None:
    from ..export.sglang_source import FILE, KERNEL
    from .export_entries import print_missing, print_verdict
    from .output import heading, print_wrapped

    capability = setup.hardware.compute_capability
    heading(f"SGLang 0.5.23's all-reduce v2 on {setup.hardware.name}, compute capability {capability}")
    echo()
    told = [*(f"{name}={value}" for name, value in found.environment.items()), *found.arguments]
    heading(f"For the {found.served} ranks of this deployment")
    echo(f"  {' '.join(told) if told else _nothing(found)}")
    echo()
    heading(f"{FILE}: {found.function or 'its default, for devices that it has no table of'}")
    for entry in found.entries:
        if entry.verdict is not None:
            print_verdict(
                f"{entry.ranks} ranks", entry.verdict, entry.points, entry.sources, entry.line, entry.note, KERNEL
            )
    print_missing([entry.missing for entry in found.entries if entry.missing])
    echo()
    heading("What neither expresses")
    for text in _NOT_EXPRESSED:
        print_wrapped(f"  {text}", "  ")


def _nothing(found: SglangTable) -> str:
    mine = next((entry for entry in found.entries if entry.ranks == found.served), None)
    if mine is None:
        return "SGLang has no table for so many ranks: NCCL sums"
    return mine.missing or "Nothing to tell: its default stands"
