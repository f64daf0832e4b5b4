"""Runs `commplan` within the test process, as its entry point does: patched arguments, captured streams, exit code."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from commplan.planner.cli import main
from commplan.planner.strategy.errors import one_line

ERROR_KEYS = {"kind", "file", "field", "value", "message"}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON object and nothing else."""
        value = json.loads(self.out, parse_constant=_not_json)
        assert isinstance(value, dict)
        return value


def run(*arguments: object) -> Result:
    """What `commplan ARGUMENTS` prints and exits with; a bug in commplan escapes as the exception it is."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["commplan", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def answer(*arguments: object) -> Any:
    """The JSON object of a command that must succeed."""
    result = run(*arguments, "--json")
    assert (result.code, result.err) == (0, ""), result
    return result.json


def refused(*arguments: object, code: int = 2) -> dict[str, Any]:
    """The error of a command that must fail: one line for a person, the same as one JSON object for a program."""
    plain = run(*arguments)
    assert plain.code == code, plain
    assert plain.out == ""
    assert plain.err.startswith("error: ")
    assert plain.err.count("\n") == 1, "one error is one line"
    result = run(*arguments, "--json")
    assert (result.code, result.err) == (code, ""), result
    assert set(result.json) == {"error"}
    error = result.json["error"]
    assert set(error) == ERROR_KEYS
    for part in ("file", "field", "message"):
        assert error[part] is None or one_line(error[part]) in plain.err
    return dict(error)


def _not_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")
