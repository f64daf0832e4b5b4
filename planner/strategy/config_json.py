"""Reading single values of a Hugging Face config.json; every complaint names the file and the field.

Light on purpose: the runtime takes the fingerprint of a config through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .bounds import LARGEST_INT
from .errors import InputError, together


class ConfigJson:
    """A config.json, or a section of one. A null stands for a field left out, as it does at Hugging Face."""

    def __init__(self, data: dict[str, Any], file: str | None = None, path: str = "") -> None:
        self._data = {key: value for key, value in data.items() if value is not None}
        self.file, self.path = file, path
        self._absent: list[InputError] | None = None  # fields found missing, where all are looked for

    def read_by(self, read: Callable[[ConfigJson], dict[str, Any]]) -> dict[str, Any]:
        """What a reader makes of it; raises InputError for all sizes that are missing, not the first alone."""
        absent: list[InputError] = []
        self._absent = absent
        try:
            fields = read(self)
        except InputError:
            if not absent:
                raise
        finally:
            self._absent = None
        if absent:
            raise together(absent)
        return fields

    def size(self, key: str, most: int = LARGEST_INT) -> int:
        """A whole number above 0 that must be there."""
        if key in self._data:
            return self._whole(key, 1, most)
        if self._absent is None:
            raise self.missing(key)
        self._absent.append(self.missing(key))
        return 1  # until the reader has asked for the others

    def size_or(self, key: str, default: int) -> int:
        """A whole number above 0, or what a field left out stands for; an explicit 0 stands for nothing."""
        return self.size(key) if key in self._data else default

    def sizes(self, *keys: str) -> dict[str, int]:
        """Those of the fields that are there, each a whole number above 0."""
        return {key: self.size(key) for key in keys if key in self._data}

    def size_by(self, *names: str) -> int:
        """A whole number above 0 that has had several names; the first is the one that a complaint names."""
        return self.size(next((name for name in names if name in self._data), names[0]))

    def count(self, key: str, default: int) -> int:
        """A whole number, 0 included."""
        return self._whole(key, 0, LARGEST_INT) if key in self._data else default

    def flag(self, key: str) -> bool:
        """True or false; false where it is left out."""
        return bool(self._typed(key, bool, "true or false")) if key in self._data else False

    def items(self, key: str, of: type) -> list[Any]:
        """A list of texts or whole numbers; empty where it is left out."""
        if key not in self._data:
            return []
        expected = "a list of " + ("texts" if of is str else "whole numbers")
        found: list[Any] = self._typed(key, list, expected)
        if any(type(item) is not of for item in found):
            raise self.refused(key, expected)
        return found

    def has(self, key: str) -> bool:
        """True where the field is there and is no null."""
        return key in self._data

    def is_minus_one(self, key: str) -> bool:
        """True where the field holds -1, by which some fields say `none`."""
        return type(self._data[key]) is int and self._data[key] == -1

    def text(self, key: str) -> str | None:
        """A text, or None where it is left out."""
        return str(self._typed(key, str, "a text")) if key in self._data else None

    def mapping(self, key: str) -> ConfigJson | None:
        """A mapping within, or None where it is left out."""
        return self.section(key) if key in self._data else None

    def mappings(self) -> list[ConfigJson]:
        """Every value of this mapping, each a mapping itself."""
        return [self.section(str(key)) for key in self._data]

    def section(self, key: str) -> ConfigJson:
        """A mapping within, or the whole where it is left out."""
        if key not in self._data:
            return self
        found = ConfigJson(self._typed(key, dict, "a mapping"), self.file, f"{self.path}{key}.")
        found._absent = self._absent
        return found

    def missing(self, key: str) -> InputError:
        """The error for a field that must be there."""
        return InputError("is missing", file=self.file, field=self.path + key, kind="missing_key")

    def refused(self, key: str, expected: str) -> InputError:
        """The error for a value that is not what is expected."""
        return InputError(f"{expected} is expected", file=self.file, field=self.path + key, value=self._data[key])

    def _whole(self, key: str, least: int, most: int) -> int:
        value = self._data[key]
        if type(value) is not int or not least <= value <= most:
            raise self.refused(key, f"a whole number from {least} to {most}")
        return value

    def _typed(self, key: str, of: type, expected: str) -> Any:
        if type(self._data[key]) is not of:
            raise self.refused(key, expected)
        return self._data[key]
