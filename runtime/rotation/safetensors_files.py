"""Weight files of a checkpoint: what they hold, read tensor by tensor, and files of the same form written so.

The library writes a file from tensors that are all in memory; these are written one behind the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import RefusedError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_AGAIN = "download or save the checkpoint again"
_ALIGNED = 8  # bytes, of the header
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Types of weights that can be rotated, as the files spell them."""


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: its type as files spell it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """How many values it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class WeightFile:
    """A file of weights: its tensors in the order in which they are written, and its notes."""

    path: Path
    entries: dict[str, Entry]
    notes: dict[str, str]

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The file, of which `get_tensor` gives one; raises RefusedError where it cannot be read."""
        with _reading(self.path) as opened:
            yield opened


def weight_files(checkpoint: Path) -> list[WeightFile]:
    """Every weight file of a checkpoint; raises RefusedError where one is missing or damaged."""
    index = checkpoint / INDEX
    if not index.is_file():
        if not (checkpoint / SINGLE).is_file():
            raise RefusedError(f"no file named {SINGLE} or {INDEX}; {_AGAIN}", file=str(checkpoint))
        return [_weight_file(checkpoint / SINGLE, None)]
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        by_file: dict[str, set[str]] = {}
        for name, file in weight_map.items():
            by_file.setdefault(os.path.basename(file), set()).add(name)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise RefusedError(f"no index of weights that can be read; {_AGAIN}", file=str(index)) from None
    return [_weight_file(checkpoint / file, names) for file, names in sorted(by_file.items())]


def _weight_file(path: Path, names: set[str] | None) -> WeightFile:
    """A file with those of its tensors that the index has there; with all of them, without an index."""
    with _reading(path) as opened:
        entries = {}
        for name in opened.keys():  # noqa: SIM118 - it is no dict
            if names is None or name in names:
                part = opened.get_slice(name)
                entries[name] = Entry(part.get_dtype(), tuple(part.get_shape()))
        notes = dict(opened.metadata() or {})
    if missing := sorted((names or set()) - entries.keys()):
        raise RefusedError(f"has no {missing[0]}, which {INDEX} says; {_AGAIN}", file=str(path))
    return WeightFile(path, entries, notes)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            yield opened
    except (SafetensorError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        said = " ".join(str(error).split())
        raise RefusedError(f"not a safetensors file that can be read: {said}; {_AGAIN}", file=str(path)) from None


class WeightWriter:
    """A file whose header says what follows; `add` writes the tensors in that order."""

    def __init__(self, stream: BinaryIO, entries: Mapping[str, Entry], notes: Mapping[str, str]) -> None:
        self._stream = stream
        self._left = dict(entries)
        header: dict[str, Any] = {"__metadata__": dict(notes)} if notes else {}
        at = 0
        for name, entry in entries.items():
            end = at + entry.num_elements * bytes_of(entry.dtype)
            header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNED)
        stream.write(len(text).to_bytes(8, "little") + text)

    def add(self, name: str, tensor: Tensor) -> None:
        """The next tensor."""
        expected, entry = next(iter(self._left.items()))
        assert name == expected and tuple(tensor.shape) == entry.shape, f"{name} {tuple(tensor.shape)}"
        del self._left[name]
        self._stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def finish(self) -> None:
        """Everything on disk."""
        assert not self._left
        self._stream.flush()
        os.fsync(self._stream.fileno())


def bytes_of(dtype: str) -> int:
    """Of a value, in a type as files spell it; raises RefusedError for one that they do not spell so."""
    for ending, size in (("64", 8), ("32", 4), ("16", 2), ("8", 1)):
        if dtype.endswith(ending):
            return size
    if dtype in ("BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"):
        return 1
    raise RefusedError("a type of whole bytes is expected", field="dtype", value=dtype)
