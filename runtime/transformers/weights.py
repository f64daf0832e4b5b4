"""What tells the weights of one checkpoint from those of another, without reading all of them.

Two checkpoints of one architecture have the same config.json. Ranks that each have a copy of their own would add up
parts of different models, and nothing would look wrong. So they compare names, sizes and headers of the weight files,
and a few bytes from the middle of tensors all over each file.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import RefusedError

_MOST_HEADER_BYTES = 100_000_000  # what the safetensors library takes
_TENSORS, _BYTES = 64, 64  # looked at per file, of each
_AGAIN = "download or save the checkpoint again"


def weights_digest(checkpoint: str | Path) -> str:
    """16 hex digits, equal for equal checkpoints; raises RefusedError for a file whose header is damaged."""
    names = ("*.safetensors", "pytorch_model*.bin")
    files = sorted(path for name in names for path in Path(checkpoint).glob(name) if path.is_file())
    if not files:
        raise RefusedError(f"no file named model.safetensors; {_AGAIN}", file=str(checkpoint))
    found = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                found.update(f"{path.name} {size}\n".encode())
                if path.suffix == ".safetensors":
                    found.update(_sample(file, size))
        except (OSError, ValueError, RecursionError) as error:
            reason = f"not a safetensors file that can be read: {error or type(error).__name__}; {_AGAIN}"
            raise RefusedError(reason, file=str(path)) from None
    return found.hexdigest()[:16]


def _sample(file: BinaryIO, size: int) -> bytes:
    """The header, and bytes from the middle of tensors; ValueError where they do not lie in the file."""
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(_MOST_HEADER_BYTES, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = file.read(length)
    tensors = json.loads(header)
    if not isinstance(tensors, dict):
        raise ValueError("the header is no mapping")
    spans = sorted(_span(name, entry, size - 8 - length) for name, entry in tensors.items() if name != "__metadata__")
    parts = [header]
    for first, last in spans[:: max(1, len(spans) // _TENSORS)]:
        file.seek(8 + length + (first + last) // 2)
        parts.append(file.read(min(_BYTES, last - first)))
    return b"".join(parts)


def _span(name: str, entry: Any, size: int) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets):
        first, last = offsets
        if 0 <= first <= last <= size:
            return first, last
    raise ValueError(f"tensor {name!r} lies at {str(offsets)[:80]} of {size} bytes")
