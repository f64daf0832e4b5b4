"""The `commplan` command. One file per subcommand; each imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from itertools import takewhile
from typing import Any

import click

from ..strategy.command_line.terminal import echo, print_json, styled, use_colours
from ..strategy.errors import CommplanError, InputError, did_you_mean
from ..strategy.files import STANDARD_OUTPUT, one_command, unprintable

# Subcommand -> module; the order is the order of --help. The runtime's are known here by name alone.
_COMMANDS = {
    "plan": "commplan.planner.cli.plan",
    "explain": "commplan.planner.cli.explain",
    "validate": "commplan.planner.cli.validate",
    "diff": "commplan.planner.cli.diff",
    "what-if": "commplan.planner.cli.what_if",
    "calibrate": "commplan.planner.cli.calibrate",
    "report": "commplan.planner.cli.report",
    "verify": "commplan.planner.cli.verify",
    "backtest": "commplan.planner.cli.backtest",
    "sensitivity": "commplan.runtime.cli.sensitivity",
    "check": "commplan.runtime.cli.check",
    "run": "commplan.runtime.cli.run",
    "rotate": "commplan.runtime.cli.rotate",
    "launch": "commplan.runtime.cli.launch",
    "counters": "commplan.runtime.cli.counters",
    "export": "commplan.planner.cli.export",
    "init": "commplan.planner.cli.init",
    "presets": "commplan.planner.cli.presets",
    "schema": "commplan.planner.cli.schema",
    "import-model": "commplan.planner.cli.import_model",
    "import-table": "commplan.planner.cli.import_table",
}
_NO_COLOUR = "--no-color"


class _Commands(click.Group):
    """Imports a subcommand's file when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name]).command
        if not any(_NO_COLOUR in parameter.opts for parameter in command.params):
            command.params.append(_no_colour())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand that is named; one that there is not is answered with the nearest."""
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise InputError(f"no such command; {did_you_mean(args[0], _COMMANDS)}", kind="usage", value=args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; what it reads it does not overwrite."""
        with one_command():
            return super().invoke(ctx)


def _no_colour() -> click.Option:
    """Of every subcommand, and of the command itself. `main` looks for it, so that errors are plain too."""
    return click.Option([_NO_COLOUR], is_flag=True, expose_value=False, help="Print without colours, as NO_COLOR does.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="commplan")
def commplan() -> None:
    """Plan how partial sums travel between tensor-parallel devices: per layer, forward mode and token range."""


commplan.params.append(_no_colour())


def main() -> None:
    """Entry point: user errors become one line (or one JSON object) and an exit code."""
    given = list(takewhile(lambda argument: argument != "--", sys.argv[1:]))
    as_json = "--json" in given
    use_colours(_NO_COLOUR not in given)
    try:
        commplan(standalone_mode=False, prog_name="commplan")
    except CommplanError as error:
        from ..strategy.lines_of_files import located

        located(error)
        _fail(str(error), error.as_json(), error.exit_code, as_json)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _fail(_in_a_line(error), _usage(error), 2, as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if not _is_of_help(error):
            raise
        failed = unprintable(error)
        _fail(str(failed), failed.as_json(), failed.exit_code, as_json)


def _is_of_help(error: OSError) -> bool:
    """True where click could not print, which it does by itself for --help and --version alone."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_globals.get("__name__") == "click.utils"


def _in_a_line(error: click.ClickException) -> str:
    """What click says of a command line, which it may do in several lines, and where help is."""
    said = " ".join(error.format_message().split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    return said if context is None else f"{said} ({context.command_path} --help)"


def _usage(error: click.ClickException) -> dict[str, object]:
    parameter = getattr(error, "param", None)
    field = parameter.opts[0] if parameter is not None else getattr(error, "option_name", None)
    said = error.format_message()
    return {"kind": "usage", "file": None, "line": None, "field": field, "value": None, "message": said}


def _fail(message: str, detail: dict[str, object], exit_code: int, as_json: bool) -> None:
    if as_json and detail["file"] != STANDARD_OUTPUT:
        print_json({"error": detail})
    else:
        first, *others = message.split("\n")  # one, but for files with several faults and ranks with a message each
        echo(styled("error: ", "red", bold=True), first, err=True)
        for line in others:
            echo(line, err=True)
    sys.exit(exit_code)
