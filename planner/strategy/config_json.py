"""Reading single values of a Hugging Face config.json; every complaint names the file and the field.

Light on purpose: the runtime takes the fingerprint of a config through it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from .bounds import LARGEST_INT
from .errors import InputError, together


class ConfigJson:
    """A config.json, or a section of one. A null stands for a field left out, as it does at Hugging Face.

    `defaults` are what transformers takes for fields left out, of the model_type; `read` and `defaulted` note which
    fields were asked for, and which defaults were taken. Sections note in the same.
    """

    def __init__(
        self,
        data: dict[str, Any],
        file: str | None = None,
        path: str = "",
        defaults: Mapping[str, Any] | None = None,
        within: ConfigJson | None = None,
    ) -> None:
        self._given = {key: value for key, value in data.items() if value is not None}
        self._nulls = data.keys() - self._given.keys()
        self._defaults = dict(defaults or {})
        self._data = {**self._defaults, **self._given}
        self.file, self.path = file, path
        self.read: set[str] = within.read if within is not None else set()
        self.defaulted: dict[str, Any] = within.defaulted if within is not None else {}
        # Fields found missing, where all are looked for.
        self._absent: list[InputError] | None = within._absent if within is not None else None

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
        """A whole number above 0 that must be there, or have a default; a null is no number."""
        if self._is_there(key) and key not in self._nulls:
            return self._size(key, most)
        if self._absent is None:
            raise self.missing(key)
        self._absent.append(self.missing(key))
        return 1  # until the reader has asked for the others

    def size_or(self, key: str, default: int) -> int:
        """A whole number above 0, or what a field left out stands for; an explicit 0 stands for nothing."""
        return self._size(key, LARGEST_INT) if self._is_there(key) else default

    def sizes(self, *keys: str) -> dict[str, int]:
        """Those of the fields that are there, each a whole number above 0. A null says that there is none."""
        return {key: self.size(key) for key in keys if self._is_there(key) and key not in self._nulls}

    def size_by(self, *names: str) -> int:
        """A whole number above 0 that has had several names; the first is the one that a complaint names."""
        self.read.update(self.path + name for name in names)
        found = [name for name in names if name in self._given] or [name for name in names if name in self._data]
        return self.size(found[0] if found else names[0])

    def count(self, key: str, default: int) -> int:
        """A whole number, 0 included."""
        return self._whole(key, 0, LARGEST_INT) if self._is_there(key) else default

    def flag(self, key: str) -> bool:
        """True or false; false where it is left out."""
        return bool(self._typed(key, bool, "true or false")) if self._is_there(key) else False

    def items(self, key: str, of: type) -> list[Any]:
        """A list of texts or whole numbers; empty where it is left out."""
        if not self._is_there(key):
            return []
        expected = "a list of " + ("texts" if of is str else "whole numbers")
        found: list[Any] = self._typed(key, list, expected)
        if any(type(item) is not of for item in found):
            raise self.refused(key, expected)
        return found

    def kinds(self, key: str, num_layers: int, accepted: tuple[str, ...], *, longer: bool = False) -> list[str] | None:
        """A word for each layer, or None where the field is left out; `longer`: words of MTP layers may follow."""
        words: list[str] = self.items(key, str)[: num_layers if longer else None]
        if not words:
            return None
        if len(words) != num_layers or set(words) - set(accepted):
            raise self.refused(key, f"{' or '.join(accepted)} for each of {num_layers} layers")
        return words

    def layers_by(self, key: str, num_layers: int, *, longer: bool = False) -> list[int] | None:
        """A whole number for each layer, or None where the field is left out or is one number for all."""
        if not self._is_there(key) or type(self._data[key]) is int:
            return None
        numbers: list[int] = self.items(key, int)[: num_layers if longer else None]
        if len(numbers) != num_layers:
            raise self.refused(key, f"a whole number for each of {num_layers} layers")
        return numbers

    def has(self, key: str) -> bool:
        """True where the field is there and is no null, whatever its default is."""
        self.read.add(self.path + key)
        return key in self._given

    def unread(self, names: frozenset[str]) -> list[tuple[str, Any]]:
        """Those of these fields that are there, say something, and were never asked for."""
        return [
            (self.path + key, value)
            for key, value in self._given.items()
            if key in names and self.path + key not in self.read and value and not _says_nothing(key, value)
        ]

    def unread_like(self, field: str) -> str | None:
        """A field beside it that was never asked for and is spelled almost like it."""
        near = difflib.get_close_matches(field, (key for key in self._given if key not in self.read), n=1, cutoff=0.88)
        return near[0] if near else None

    def _is_there(self, key: str) -> bool:
        self.read.add(self.path + key)
        return key in self._data

    def is_minus_one(self, key: str) -> bool:
        """True where the field holds -1, by which some fields say `none`."""
        self.read.add(self.path + key)
        return type(self._data[key]) is int and self._data[key] == -1

    def text(self, key: str) -> str | None:
        """A text, or None where it is left out."""
        return str(self._typed(key, str, "a text")) if self._is_there(key) else None

    def mapping(self, key: str) -> ConfigJson | None:
        """A mapping within, or None where it is left out."""
        if not self._is_there(key):
            return None
        return ConfigJson(self._typed(key, dict, "a mapping"), self.file, f"{self.path}{key}.", within=self)

    def mappings(self) -> list[ConfigJson]:
        """Every value of this mapping, each a mapping itself."""
        found = (self.mapping(str(key)) for key in self._data)
        return [section for section in found if section is not None]

    def section(self, key: str) -> ConfigJson:
        """A mapping within, or the whole where it is left out; defaults are those of the section."""
        if not self._is_there(key):
            return self
        inner = self._typed(key, dict, "a mapping")
        return ConfigJson(inner, self.file, f"{self.path}{key}.", self._defaults, within=self)

    def missing(self, key: str) -> InputError:
        """The error for a field that must be there."""
        return InputError("is missing", file=self.file, field=self.path + key, kind="missing_key")

    def refused(self, key: str, expected: str) -> InputError:
        """The error for a value that is not what is expected."""
        return InputError(f"{expected} is expected", file=self.file, field=self.path + key, value=self._data[key])

    def _size(self, key: str, most: int) -> int:
        if key not in self._given:
            self.defaulted[self.path + key] = self._data[key]
        return self._whole(key, 1, most)

    def _whole(self, key: str, least: int, most: int) -> int:
        value = self._data[key]
        if type(value) is not int or not least <= value <= most:
            raise self.refused(key, f"a whole number from {least} to {most}")
        return value

    def _typed(self, key: str, of: type, expected: str) -> Any:
        if type(self._data[key]) is not of:
            raise self.refused(key, expected)
        return self._data[key]


def _says_nothing(key: str, value: Any) -> bool:
    """Experts in every layer, full attention in every layer: what a plain decoder has."""
    if key == "decoder_sparse_step":
        return bool(value == 1)
    return isinstance(value, list) and set(map(str, value)) <= {"full_attention"}
