"""What may stand on the command line: every numeric option of every command has one of these types, with bounds.

A number outside is refused before anything is read or started, by the option's name, with the value and the range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import click

from ..bounds import MAX_LAYERS, MAX_TOKENS
from ..errors import InputError
from ..files import name_target

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # no generic in the oldest click that will do

_SECONDS_OF_A_WEEK = 7 * 24 * 3600.0
_PORTS = range(1, 2**16)


class Bounded(_ParamType):
    """A number from `least` to `most`; NaN lies in no range."""

    noun: ClassVar[str]
    of: ClassVar[type[int] | type[float]]

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most
        self.name = "integer" if self.of is int else "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """The number that a text holds; raises InputError."""
        try:
            number = self.of(value)
        except (ValueError, OverflowError):
            number = None
        if number is None or not self.least <= number <= self.most:
            least, most = (x if isinstance(x, int) else f"{x:g}" for x in (self.least, self.most))
            expected = f"{self.noun} from {least} to {most} is expected"
            raise InputError(expected, kind="usage", field=_name(param), value=value)
        return number


class Count(Bounded):
    """A whole number."""

    noun, of = "a whole number", int


class Seconds(Bounded):
    """A time. A week is more than anything here takes, and less than what a clock or a socket cannot count."""

    noun, of = "a number of seconds", float

    def __init__(self, least: float = 0.001, most: float = _SECONDS_OF_A_WEEK) -> None:
        super().__init__(least, most)


class Milliseconds(Bounded):
    """A time that a user waits."""

    noun, of = "a number of milliseconds", float

    def __init__(self) -> None:
        super().__init__(0.001, 3_600_000)


class Seed(Bounded):
    """A seed of random numbers, in 64 bits."""

    noun, of = "a whole number", int

    def __init__(self) -> None:
        super().__init__(0, 2**64 - 1)


TOKENS = Count(1, MAX_TOKENS)
LAYER = Count(0, MAX_LAYERS - 1)
RANKS = Count(1, 2**16)


class ServerAddress(_ParamType):
    """http://HOST:PORT of a server."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """The address as it was given; raises InputError."""
        from urllib.parse import urlsplit

        text = str(value)
        try:
            parts = urlsplit(text)
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port in (None, *_PORTS)
        except ValueError:  # the port is no number, or above 65535
            right = False
        if not right or not text.isascii() or not text.isprintable() or " " in text:
            expected = f"http://HOST:PORT is expected, with a port from 1 to {_PORTS[-1]}"
            raise InputError(expected, kind="usage", field=_name(param), value=value)
        return text


class FilledText(_ParamType):
    """A name or path: not empty, as an unset variable of a shell is."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """The text as it was given; raises InputError."""
        text = str(value)
        if not text.strip() or "\0" in text:
            raise InputError("a name or path is expected", kind="usage", field=_name(param), value=text)
        return text


class Name(FilledText):
    """What a file will call something: printable, and text that files can hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it was given; raises InputError."""
        text = super().convert(value, param, ctx)
        if not text.isprintable():  # nor is half a character
            raise InputError("a name of printable characters is expected", kind="usage", field=_name(param), value=text)
        return text


class OutputFile(FilledText):
    """A file to write when the work is done: that it can be written, over nothing that is read, is seen before.

    `-` is standard output, and nothing else is printed there then.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path as it was given, named as what will be written; raises InputError."""
        text = super().convert(value, param, ctx)
        name_target(text, _name(param) or "--output")
        return text


class OutputFolder(FilledText):
    """A folder to write when the work is done; its command says what it must lie apart from (folders.py)."""


class FieldText(_ParamType):
    """FIELD=VALUE or FIELD=VALUES: YAML, so UTF-8."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """The text as it was given; raises InputError."""
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError("a text in UTF-8 is expected", kind="usage", field=_name(param), value=text) from None
        return text


def _name(param: click.Parameter | None) -> str | None:
    if param is None:
        return None
    return param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name


FILLED = FilledText()
