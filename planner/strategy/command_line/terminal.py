"""Where everything that a command says is printed.

Names come from files, servers and command lines that a stranger may have written, so each text is printed with its
control characters escaped. Colours are ours: they come from `styled`, and never from within a text.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ..errors import InputError, one_line


@dataclass(frozen=True)
class Styled:
    """A text in a colour or weight, on terminals that have them."""

    text: str
    colour: str | None = None
    bold: bool = False
    dim: bool = False

    def rendered(self) -> str:
        """The text, escaped, in its style."""
        return click.style(one_line(self.text), fg=self.colour, bold=self.bold or None, dim=self.dim or None)


STANDARD_OUTPUT = "standard output"
Part = str | Styled
Cell = Part | tuple[Part, ...]


def styled(text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> Styled:
    """A text that `echo` prints in a style."""
    return Styled(text, colour, bold, dim)


def width(cell: Cell) -> int:
    """Characters that a cell takes."""
    return sum(len(one_line(p if isinstance(p, str) else p.text)) for p in _parts(cell))


def rendered(cell: Cell) -> str:
    """A cell as it is printed."""
    return "".join(one_line(part) if isinstance(part, str) else part.rendered() for part in _parts(cell))


def echo(*parts: Part, err: bool = False) -> None:
    """One line on standard output or standard error: a line break within a text is escaped too."""
    write_line(rendered(parts), err=err)


def echo_lines(text: str, *, err: bool = False) -> None:
    """A text that has lines of its own, as what a model has generated."""
    for line in text.split("\n"):
        echo(line, err=err)


def print_json(value: Any) -> None:
    """One JSON object on standard output, in ASCII."""
    write_line(json.dumps(value, allow_nan=False))


def can_ask() -> bool:
    """Whether there is somebody to ask: questions go to standard error, answers come from standard input."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, read: Callable[[str], Any], default: str | None = None) -> Any:
    """The answer to a question, asked again until `read` takes it; `read` raises click.UsageError where it does not."""
    return click.prompt(one_line(question), default=default, show_default=False, value_proc=read, err=True)


def _parts(cell: Cell) -> tuple[Part, ...]:
    return cell if isinstance(cell, tuple) else (cell,)


def write_line(line: str, *, err: bool = False) -> None:
    """A line that is fit to be printed; raises InputError where standard output cannot be written."""
    try:
        click.echo(line, err=err)
    except BrokenPipeError:
        raise
    except OSError as error:
        if err:  # there is nowhere left to say so
            return
        _give_up(sys.stdout)
        raise InputError(f"cannot be written: {error.strerror}", file=STANDARD_OUTPUT, kind="unwritable") from None


def _give_up(stream: Any) -> None:
    """What is left in a stream's buffer goes nowhere: Python would fail to write it once more at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # a stream without a file behind it
        return
