"""Is a strategy file legal?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ._asking import Path, in_python, name_of

if TYPE_CHECKING:
    from commplan.planner.strategy.file import Problem


@dataclass(frozen=True, repr=False)
class Validation:
    """What is wrong with a strategy file; true where nothing is."""

    path: str
    problems: tuple[Problem, ...]

    @property
    def legal(self) -> bool:
        """True where the file may be run."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.legal

    def to_records(self) -> list[dict[str, Any]]:
        """A row for each problem: its field, value and reason."""
        return [asdict(problem) for problem in self.problems]

    def __repr__(self) -> str:
        if self.legal:
            return f"<commplan.Validation {self.path}: legal>"
        first, more = self.problems[0], len(self.problems) - 1
        where = f"{first.field}: " if first.field else ""
        return f"<commplan.Validation {self.path}: illegal, {where}{first.reason}{f' and {more} more' if more else ''}>"

    def _repr_html_(self) -> str:
        from ._table import html_table

        rows = [(problem.field, problem.value, problem.reason) for problem in self.problems]
        title = f"{self.path}: {'legal' if self.legal else 'illegal'}"
        return html_table(title, ("field", "value", "reason") if rows else (), rows)


@in_python
def validate(path: Path) -> Validation:
    """Prove a strategy file legal for its model, parallelism, modes and executor, or say all that is wrong with it.

    Needs no hardware. A file that cannot be read is illegal too.
    """
    from commplan.planner.answers.validation import validate as problems_of

    name = name_of(path)
    return Validation(name, tuple(problems_of(name)))
