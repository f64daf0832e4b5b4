"""On which line of a file a field stands: for errors, which name a field as `links.intra_node.latency_us`.

A file is read a second time for it, so only once something is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import CommplanError
from .files import read_text
from .yaml_file import LOADER, MAX_DEPTH

E = TypeVar("E", bound=CommplanError)
_OF_A_LAYER = re.compile(r"(.*\.layers)\.([0-9]+)\.(\w+)\Z")
_LAST_PART = re.compile(r"(\.[^.\[\]]*|\[[0-9]+\]|\A[^.\[\]]+)\Z")


def located(error: E) -> E:
    """The same error with its line, and that of each other; without one where no file holds the field."""
    known: dict[str, Lines | None] = {}
    faults: list[CommplanError] = [error, *error.others]
    for each in faults:
        if each.line is None and each.file is not None and each.field and not each.field.startswith("--"):
            if each.file not in known:
                known[each.file] = Lines.of_file(each.file)
            lines = known[each.file]
            each.line = lines.of(each.field) if lines is not None else None
    return error


class Lines:
    """The lines of a YAML or JSON file by field."""

    def __init__(self, text: str) -> None:
        self._found: dict[str, tuple[int, str]] = {}  # line, and the text of a scalar
        events = yaml.parse(text, Loader=LOADER)
        try:
            for event in events:
                if isinstance(event, yaml.NodeEvent):
                    self._walk(event, events, "", _line(event), 0)
        except (yaml.YAMLError, UnicodeEncodeError, StopIteration):
            return  # the lines before it are known

    @classmethod
    def of_file(cls, path: str | Path) -> Lines | None:
        """Those of a file, or None where it cannot be read: whoever met the error has read it."""
        try:
            return cls(read_text(path)) if Path(path).is_file() else None
        except (CommplanError, OSError, ValueError):
            return None

    def of(self, field: str) -> int | None:
        """The line of a field; of one that is missing, that of the mapping it belongs in; None for no field."""
        if not field:
            return None
        field = self._in_its_run(field)
        while field:
            if field in self._found:
                return self._found[field][0]
            shorter = _LAST_PART.sub("", field)
            field = shorter if shorter != field else ""
        return self._found[""][0] if "" in self._found else None

    def _in_its_run(self, field: str) -> str:
        """`...layers.12.attn_out` of a strategy file stands in the run of layers that holds 12."""
        match = _OF_A_LAYER.match(field)
        if match is None or field in self._found:
            return field
        runs, layer, boundary = match[1], int(match[2]), match[3]
        index = 0
        while (run := f"{runs}[{index}]") in self._found:
            if any(low <= layer <= high for low, high in _spans(self._found.get(f"{run}.layers", (0, ""))[1])):
                return f"{run}.{boundary}"
            index += 1
        return runs

    def _walk(self, event: Any, events: Iterator[Any], path: str, line: int, depth: int) -> None:
        """Note where a node stands, and every node within; keys stand where their names do."""
        if depth > MAX_DEPTH:
            raise yaml.YAMLError
        self._found.setdefault(path, (line, event.value if isinstance(event, yaml.ScalarEvent) else ""))
        if isinstance(event, yaml.SequenceStartEvent):
            index = 0
            while not isinstance(child := next(events), yaml.SequenceEndEvent):
                self._walk(child, events, f"{path}[{index}]", _line(child), depth + 1)
                index += 1
        elif isinstance(event, yaml.MappingStartEvent):
            while not isinstance(key := next(events), yaml.MappingEndEvent):
                if not isinstance(key, yaml.ScalarEvent):
                    raise yaml.YAMLError
                field = f"{path}.{key.value}" if path else key.value
                self._walk(next(events), events, field, _line(key), depth + 1)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _spans(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
        if match is not None:
            yield int(match[1]), int(match[2] or match[1])
