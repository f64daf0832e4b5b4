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

ERROR_KEYS = {"kind", "file", "line", "field", "value", "message"}


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
    """The error of a command that must fail: a line for a person, the same as one JSON object for a program.

    A file with several faults has a line for each; the object of the first holds the `others`.
    """
    plain = run(*arguments)
    assert plain.code == code, plain
    assert plain.out == ""
    assert plain.err.startswith("error: ")
    result = run(*arguments, "--json")
    assert (result.code, result.err) == (code, ""), result
    assert set(result.json) == {"error"}
    error = result.json["error"]
    faults = [error, *error.get("others", [])]
    assert plain.err.count("\n") == len(faults), "one error is one line"
    assert set(error) - {"others"} == ERROR_KEYS
    for fault, line in zip(faults, plain.err.splitlines(), strict=True):
        for part in ("file", "field", "message"):
            assert fault[part] is None or one_line(fault[part]) in line
    return dict(error)


def _not_json(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")
