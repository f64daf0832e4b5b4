"""The header of a safetensors file, spoiled: eight bytes of length, then JSON of types, shapes and offsets."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

DTYPES = ["F32", "BF16", "F16", "F64", "I64", "I8", "BOOL", "F8_E4M3", "U8", "X7", "", None, 3]


def spoil_header(path: Path, rng: random.Random) -> str:
    """Spoil one thing of the header; says what."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    what = rng.choice(["length", "JSON", "tensor", "tensor", "tensor", "names", "metadata", "data"])
    text = json.dumps(header).encode()
    size = len(text)
    if what == "length":
        size = rng.choice([0, 1, size - 1, size + 1, size + len(data), 2**31, 2**63, 2**64 - 1])
    elif what == "JSON":
        text = _spoiled_json(text, rng)
        size = len(text)
    elif what == "data":
        data = rng.choice([data[:-1], data + b"x", b"", data[: len(data) // 2], bytes(len(data)), b"\xff" * len(data)])
    else:
        {"tensor": _tensor, "names": _names, "metadata": _metadata}[what](header, rng)
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        size = len(text)
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return f"header: {what}"


def _spoiled_json(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text))
    return rng.choice(
        [
            text[:at],
            text[:at] + bytes([text[at] ^ (1 << rng.randrange(8))]) + text[at + 1 :],
            b"[" * 3000 + b"]" * 3000,
            b"{}",
            b"[]",
            b"null",
            b"\xff" + text[1:],
            text.replace(b"[", b"[NaN, ", 1),
            text[:-1] + b', "x": 1}',
        ]
    )


def _tensor(header: dict[str, Any], rng: random.Random) -> None:
    tensor = header[rng.choice([name for name in header if name != "__metadata__"])]
    key = rng.choice(["dtype", "shape", "data_offsets"])
    first, last = tensor["data_offsets"]
    tensor[key] = {
        "dtype": rng.choice(DTYPES),
        "shape": rng.choice(
            [[], [0], [-1, 4], [2**40, 2**40], tensor["shape"][::-1], [*tensor["shape"], 1], None, "x"]
        ),
        "data_offsets": rng.choice(
            [[last, first], [0, 0], [first, 2**62], [-8, last], [first], [first + 4, last], "x"]
        ),
    }[key]
    if rng.random() < 0.1:
        del tensor[key]


def _names(header: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice([name for name in header if name != "__metadata__"])
    value = header.pop(name)
    new = rng.choice([None, name + "x", "\x1b[31m" + name, "", name.replace("layers.0", "layers.7"), "\ud800"])
    if new is not None:
        header[new] = value


def _metadata(header: dict[str, Any], rng: random.Random) -> None:
    header["__metadata__"] = rng.choice([None, {}, {"format": "x"}, {"format": 3}, [], "x", {"format": "\x1b[31m"}])
