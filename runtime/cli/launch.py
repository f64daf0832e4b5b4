"""`commplan launch sglang`: start a server under a plan, with the arguments that the plan needs."""

from __future__ import annotations

import os
import re
import shlex
import sys

import click

from commplan.planner.strategy.command_line.option_types import FILLED
from commplan.planner.strategy.command_line.terminal import echo

_WORDS_BEFORE_ARGUMENTS = 4  # python -P -m sglang.launch_server


@click.command(
    "launch",
    short_help="Start an SGLang server under a plan.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("server", type=click.Choice(["sglang"]))
@click.argument("strategy", type=FILLED)
@click.option("--model-path", type=FILLED, required=True, help="Checkpoint, as SGLang takes it.")
@click.option("--dry-run", is_flag=True, help="Show the command and do not run it.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(server: str, strategy: str, model_path: str, dry_run: bool, arguments: tuple[str, ...]) -> None:  # noqa: ARG001
    """Start an SGLang server that executes the plan in STRATEGY. What stands after -- goes to SGLang as it is.

    Install commplan into SGLang's environment and call it from there. The command is shown first; it adds what the
    plan needs (tensor parallel size, dtype, limits of the token counts) unless ARGUMENTS say it already. What cannot
    be started is refused before that, with --dry-run too.
    """
    from commplan.planner.strategy.file import rival_line

    from ..bound.host import check_host
    from ..servers.sglang.command import added_flags, check_installed, server_command
    from ..servers.sglang.line import check_line, typed
    from ..servers.sglang.server_fit import load_runnable
    from ..servers.sglang.words import STRATEGY_VARIABLE

    file = load_runnable(strategy)
    typed(arguments)  # as they stand: behind the plan's own a stray word would count as a value
    line = server_command(file, model_path, arguments)
    given = check_line(file, line[_WORDS_BEFORE_ARGUMENTS:], os.environ)
    _check_checkpoint(file.model.fingerprint, str(given["model_path"]))
    check_installed()
    if given.get("nnodes", 1) == 1:
        check_host(file.hardware.backend, file.parallelism.tp)
    shown = [f"{STRATEGY_VARIABLE}={strategy}", _from_here(line[0]), *line[1:]]
    for mode, rival in file.faster_rivals:
        echo(rival_line(mode, rival), err=True)
    echo(shlex.join(shown), err=not dry_run, whole=True)
    for flag in added_flags(file, arguments):
        echo(f"  {flag}", err=True)
    if dry_run:
        return
    sys.stdout.flush()
    os.execve(line[0], line, os.environ | {STRATEGY_VARIABLE: os.path.abspath(strategy)})


def _from_here(path: str) -> str:
    """A path as short as it can be typed in this folder."""
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here


def _is_no_name(model_path: str) -> bool:
    """Neither OWNER/NAME nor an address: then it can only be a path."""
    if "://" in model_path:
        return False
    return not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model_path) or os.path.exists(model_path)


def _check_checkpoint(planned: str, model_path: str) -> None:
    """A local checkpoint is compared at once; SGLang's processes compare in any case."""
    from commplan.planner.strategy.file import InputError, config_fingerprint

    from ..errors import RefusedError
    from ..transformers.checkpoint_fit import read_config

    if not os.path.isdir(model_path):
        if _is_no_name(model_path):
            raise RefusedError(
                "no such checkpoint directory, and no name of one", field="--model-path", value=model_path
            )
        return
    try:
        found = config_fingerprint(read_config(model_path))
    except InputError as error:  # of a single field
        raise error.in_file(os.path.join(model_path, "config.json")) from None
    if found != planned:
        raise RefusedError(
            f"the plan is for another model, fingerprint {planned}; plan again with `model:` set to "
            f"{os.path.join(model_path, 'config.json')}",
            field="model.fingerprint",
            value=found,
        )
