"""A table of the page: rows of cells as text, in a frame that scrolls where the page is narrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Cell:
    """A figure, and what belongs to it in smaller print."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """`words` are the columns that hold words and not figures; `illegal` the rows that are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: frozenset[int] = frozenset()
    illegal: frozenset[int] = frozenset()
    note: str = ""

    def html(self) -> str:
        """The table in its frame, which the keyboard reaches and scrolls."""
        name = escape(self.title, quote=True)
        head = "".join(f'<th scope="col"{self._class(c)}>{breakable(name)}</th>' for c, name in enumerate(self.columns))
        rows = "".join(self._row(index, row) for index, row in enumerate(self.rows))
        return (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table><caption>{name}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _row(self, index: int, row: Sequence[str | Cell]) -> str:
        cells = [
            f'<th scope="row"{self._class(c)}>{_inside(cell)}</th>'
            if c == 0
            else f"<td{self._class(c)}>{_inside(cell)}</td>"
            for c, cell in enumerate(row)
        ]
        marked = ' class="illegal"' if index in self.illegal else ""
        return f"<tr{marked}>{''.join(cells)}</tr>"

    def _class(self, column: int) -> str:
        return ' class="words"' if column in self.words else ""


def breakable(words: str) -> str:
    """A text that may be broken inside of the names of fields and ops, where it has no room."""
    return _INSIDE_A_NAME.sub(r"\g<0><wbr>", escape(words))


_INSIDE_A_NAME = re.compile(r"(?<=\w)[._](?=[a-z])")


def _inside(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return breakable(cell)
    return breakable(cell.text) + (f" <small>{breakable(cell.note)}</small>" if cell.note else "")
