"""Errors of the runtime, for the user.

CommplanError (from the planner's strategy-file module)
├── RefusedError    a plan, checkpoint or machine that cannot be run as it is, found at start
└── BoundaryError   a forward that broke, with the boundary it stood at
"""

from __future__ import annotations

from commplan.planner.strategy.file import CommplanError


class RefusedError(CommplanError):
    """The plan cannot be executed as written; says what, why, and the way out."""

    exit_code = 2

    def __init__(
        self, message: str, *, field: str | None = None, value: object = None, file: str | None = None
    ) -> None:
        super().__init__(message, kind="refused", file=file, field=field, value=value)


class BoundaryError(CommplanError):
    """A forward ended early: another rank died, timed out, or disagrees."""

    exit_code = 4

    def __init__(self, message: str, *, where: str) -> None:
        super().__init__(message, kind="forward_failed", field=where)
