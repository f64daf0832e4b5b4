"""Where everything that a command says is printed.

Names come from files, servers and command lines that a stranger may have written, so each text is printed with its
control characters escaped. Colours are ours: they come from `styled`, and never from within a text.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import click

from ..errors import one_line
from ..files import prints_a_file, unprintable


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


Part = str | Styled
Cell = Part | tuple[Part, ...]
_NARROWEST = 40
_colours = True


def use_colours(yes: bool) -> None:
    """Whether terminals get colours, unless the environment has NO_COLOR."""
    global _colours  # noqa: PLW0603
    _colours = yes


def styled(text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> Styled:
    """A text that `echo` prints in a style."""
    return Styled(text, colour, bold, dim)


def width(cell: Cell) -> int:
    """Characters that a cell takes."""
    return sum(len(one_line(_text(part))) for part in _parts(cell))


def rendered(cell: Cell) -> str:
    """A cell as it is printed."""
    return "".join(one_line(part) if isinstance(part, str) else part.rendered() for part in _parts(cell))


def room(*, err: bool = False) -> int | None:
    """Columns of the terminal that is printed to, or None where it is none: what reads a pipe wants whole lines."""
    stream = sys.stderr if err or prints_a_file() else sys.stdout
    try:
        if not stream.isatty():
            return None
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(stream.fileno()).columns)
    except (OSError, ValueError, AttributeError):  # it has no size, or is closed
        return None
    return max(columns, _NARROWEST) if columns > 0 else None


def wrapped(cell: Cell, first: int, others: int) -> list[Cell]:
    """A cell in lines of so many columns, broken at spaces; a word that is longer stands out."""
    text = "".join(one_line(_text(part)) for part in _parts(cell))
    lines: list[Cell] = []
    start, columns = 0, first
    while len(text) - start > columns:
        begun = start + len(text[start:]) - len(text[start:].lstrip(" "))
        cut = text.rfind(" ", begun, start + columns + 1)
        cut = cut if cut > begun else text.find(" ", start + columns)
        if cut < 0:
            break
        lines.append(_slice(cell, start, cut))
        start, columns = cut + 1, others
    return [*lines, _slice(cell, start, len(text))]


def _slice(cell: Cell, start: int, end: int) -> tuple[Part, ...]:
    """A stretch of the characters of a cell, in their styles."""
    found: list[Part] = []
    at = 0
    for part in _parts(cell):
        text = one_line(_text(part))
        piece = text[max(0, start - at) : max(0, end - at)]
        at += len(text)
        if piece:
            found.append(piece if isinstance(part, str) else replace(part, text=piece))
    return tuple(found)


def echo(*parts: Part, err: bool = False, whole: bool = False) -> None:
    """One line on standard output or standard error: a line break within a text is escaped too.

    A terminal that is too narrow gets it in several, the others indented; `whole` is for what is copied, or data.
    """
    columns = None if whole else room(err=err)
    if columns is None or width(parts) <= columns:
        write_line(rendered(parts), err=err)
        return
    text = "".join(one_line(_text(part)) for part in parts)
    indent = len(text) - len(text.lstrip(" ")) + 2
    first, *others = wrapped(parts, columns, columns - indent)
    write_line(rendered(first), err=err)
    for line in others:
        write_line(" " * indent + rendered(line), err=err)


def echo_lines(text: str) -> None:
    """A text that has lines of its own, as what a model has generated."""
    for line in text.split("\n"):
        echo(line, whole=True)


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


def _text(part: Part) -> str:
    return part if isinstance(part, str) else part.text


def write_line(line: str, *, err: bool = False) -> None:
    """A line that is fit to be printed; raises InputError where standard output cannot be written."""
    err = err or prints_a_file()
    try:
        click.echo(line, err=err, color=None if _colours and not os.environ.get("NO_COLOR") else False)
    except BrokenPipeError:
        raise
    except OSError as error:
        if err:  # there is nowhere left to say so
            return
        raise unprintable(error) from None
