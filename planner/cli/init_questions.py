"""What no option has given is asked on a terminal; elsewhere every missing option is named at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ..strategy.command_line.terminal import ask, can_ask
from ..strategy.errors import CommplanError, InputError, together

_Convert = Callable[[str], Any]


@dataclass(frozen=True)
class Question:
    """One thing that has to be known.

    name           of the option that gives it, with underscores
    convert        a click type, or a function that raises InputError
    may_stay_open  an empty answer leaves it open; elsewhere its option may be left out
    only_if        asked where this is true of what is known so far
    """

    name: str
    text: str
    convert: Any
    may_stay_open: bool = False
    only_if: Callable[[dict[str, Any]], bool] = lambda _: True

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, text: str) -> Any:
        """The answer; raises click.UsageError, upon which click asks again."""
        if not text.strip() and self.may_stay_open:
            return None
        try:
            if isinstance(self.convert, click.ParamType):
                return self.convert.convert(text.strip(), None, None)
            return self.convert(text.strip())
        except CommplanError as error:
            raise click.UsageError(str(error)) from None


def answered(questions: list[Question], given: dict[str, Any], asks: bool) -> dict[str, Any]:
    """What options gave and, where it can be asked, what the answers add; raises InputError for all that is missing."""
    values = dict(given)
    for question in questions:
        if values.get(question.name) is not None and not isinstance(question.convert, click.ParamType):
            values[question.name] = question.convert(values[question.name])
    open_ones = [q for q in questions if values.get(q.name) is None]
    needed = [q for q in open_ones if not q.may_stay_open and q.only_if(values)]
    if not needed:
        return values
    if not asks or not can_ask():
        raise together([InputError(f"is missing: {q.text}", kind="usage", field=q.option) for q in needed])
    for question in open_ones:
        if question.only_if(values):
            values[question.name] = ask(question.text, question.read, "" if question.may_stay_open else None)
    return values
