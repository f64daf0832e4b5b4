"""Errors meant for the user.

CommplanError
├── InputError        a file, field or value that cannot be accepted          (exit code 2)
├── OverwriteError    what is to be written is read by the same command        (exit code 2)
├── NoLegalPlanError  the input is fine, but its constraints leave no plan     (exit code 3)
└── DoesNotFitError   the input is fine, but no device holds what it asks for   (exit code 3)

Everything else that escapes is a bug in commplan.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Self, TypeVar

MOST_ERRORS = 20  # of one file
_MOST_SHOWN = 80  # characters of a value in a message
_LONGEST = 1000  # characters of a value that are worth repeating


class CommplanError(Exception):
    """Base of every error that is shown to the user: names file, field, value and the way out.

    line    of the file, where the field stands, once `located` of lines_of_files.py has looked for it
    others  what else is wrong with the same file: each is shown on a line of its own
    """

    exit_code = 2
    line: int | None = None
    others: tuple[CommplanError, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        file: str | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.file = file
        self.field = field
        self.value = value

    def __str__(self) -> str:
        return "\n".join([self._shown(), *(str(other) for other in self.others)])

    def _shown(self) -> str:
        file = f"{self.file}:{self.line}" if self.file and self.line else self.file
        where = ": ".join(part for part in (file, self.field) if part)
        shown = f" (got {_shorten(self.value)})" if self.value is not None else ""
        return one_line(f"{where}: {self.message}{shown}" if where else f"{self.message}{shown}")

    def in_file(self, file: str) -> Self:
        """The same error with its file named, unless it already names one."""
        if self.file is None:
            self.file = file
        return self

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints under the key `error`; what else is wrong stands under `others`."""
        value = self.value
        if isinstance(value, str):
            value = value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
        elif isinstance(value, float) and not math.isfinite(value):
            value = str(value)  # JSON has no word for it
        elif value is not None and not isinstance(value, int | float):
            value = _shorten(value)
        found: dict[str, object] = {
            "kind": self.kind,
            "file": self.file,
            "line": self.line,
            "field": self.field,
            "value": value,
            "message": self.message,
        }
        return found | ({"others": [other.as_json() for other in self.others]} if self.others else {})


class InputError(CommplanError):
    """The input cannot be accepted as it is."""

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        kind: str = "bad_input",
        file: str | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        super().__init__(message, kind=kind, file=file, field=field, value=value)


class OverwriteError(CommplanError):
    """Writing would destroy what the same command reads, or what it has written."""

    def __init__(self, message: str, *, file: str, field: str | None = None, value: object = None) -> None:
        super().__init__(message, kind="overwrites_input", file=file, field=field, value=value)


class NoLegalPlanError(CommplanError):
    """No sequence of ops satisfies the constraints; the message says which constraint does it."""

    exit_code = 3

    def __init__(
        self, message: str, *, file: str | None = None, field: str | None = None, value: object = None
    ) -> None:
        super().__init__(message, kind="no_legal_plan", file=file, field=field, value=value)


class DoesNotFitError(CommplanError):
    """The memory of a device does not hold what has to fit; the message says which part, and what would."""

    exit_code = 3

    def __init__(
        self, message: str, *, file: str | None = None, field: str | None = None, value: object = None
    ) -> None:
        super().__init__(message, kind="does_not_fit", file=file, field=field, value=value)


E = TypeVar("E", bound=CommplanError)


def together(errors: Sequence[E]) -> E:
    """The first of some errors with the others behind it; a file of another form would have a hundred."""
    first, *others = errors[:MOST_ERRORS]
    first.others = tuple(others)
    return first


def did_you_mean(word: object, accepted: Iterable[str]) -> str:
    """`"; did you mean 'tp'?"` where a close name exists, else the accepted names."""
    names = sorted(accepted)
    close = nearest(word, names)
    return f"did you mean '{close}'?" if close else "accepted: " + ", ".join(names)


def nearest(word: object, accepted: Iterable[str]) -> str | None:
    """The accepted name that is close to a word, if there is one."""
    names = sorted(accepted)
    begun = [name for name in names if word and name.startswith(str(word))]
    close = begun if len(begun) == 1 else difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    return close[0] if close else None


def _shorten(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def one_line(text: str) -> str:
    """Line breaks and control characters escaped: names come from files that a stranger may have written."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


# What terminals obey or that turns text around: C0, DEL, C1, separators of lines, bidirectional overrides, lone halves.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def control_character(text: str, besides: str = "") -> str | None:
    """The first control character of a text as `U+001B`, or None."""
    found = next((c[0] for c in _CONTROLS.finditer(text) if c[0] not in besides), None)
    return None if found is None else f"U+{ord(found):04X}"
