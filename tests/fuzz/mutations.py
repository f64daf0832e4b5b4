"""How a file is spoiled: its values, its text, its bytes, or the place where it stands. All by one random generator."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from commplan.planner.strategy.yaml_file import parse_yaml

from .safetensors_headers import spoil_header

Slot = tuple[Any, Any]  # a mapping or list, and a key or index in it


def spoil(path: Path, rng: random.Random) -> str:
    """Spoil the file; says how."""
    if path.suffix == ".safetensors":
        way: Callable[[Path, random.Random], str] = rng.choices([spoil_header, _bytes, _place], [8, 3, 1])[0]
    else:
        way = rng.choices([_values, _bytes, _place], [14, 5, 1])[0]
    return way(path, rng)


# ---- values ----------------------------------------------------------------------------------------------------------


def _values(path: Path, rng: random.Random) -> str:
    """Some values replaced, removed, doubled, moved; the text is written anew."""
    text = path.read_text(encoding="utf-8")
    data = json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    raw: dict[str, str] = {}
    done = []
    for _ in range(rng.choices([1, 2, 4], [7, 2, 1])[0]):
        slots = list(_slots(data))
        if not slots:
            break
        change = rng.choices(list(_CHANGES), list(_CHANGES.values()))[0]
        holder, key = rng.choice(slots)
        done.append(f"{change.__name__[1:]} {_shown(key)}")
        change(holder, key, rng, raw, data)
    written = _dumped(data, rng, raw, as_json=path.suffix == ".json")
    path.write_bytes(written.encode("utf-8", "surrogatepass"))
    return "; ".join(done)


def _shown(key: Any) -> str:
    return str(key)[:40].encode("unicode_escape").decode()


def _slots(value: Any) -> Iterator[Slot]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _slots(value[key])


def _dumped(data: Any, rng: random.Random, raw: dict[str, str], as_json: bool) -> str:
    """JSON is YAML in flow style; block style where nothing has to be smuggled in."""
    if not raw and not as_json and rng.random() < 0.5:
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=rng.random() < 0.5, width=200)
    text = json.dumps(data, indent=rng.choice([1, 1, None]), ensure_ascii=rng.random() < 0.7)
    if not as_json:
        for word, spelled in (("-Infinity", "-.inf"), ("Infinity", ".inf"), ("NaN", ".nan")):
            text = text.replace(f": {word}", f": {spelled}")
    for token, spelled in raw.items():
        text = text.replace(f'"{token}"', spelled)
    return text + "\n"


def _raw(raw: dict[str, str], text: str) -> str:
    token = f"@@{len(raw)}@@"
    raw[token] = text
    return token


def _delete(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    del holder[key]


def _null(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    holder[key] = None


def _number(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    holder[key] = rng.choice(NUMBERS)


def _scaled(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    """A number near the old one, or of another order of magnitude: often right, so that it is worked with."""
    old = holder[key]
    if isinstance(old, bool) or not isinstance(old, int | float):
        holder[key] = rng.choice([1, 2, 3, 4, 8, 16, 0.5])
    elif isinstance(old, int):
        holder[key] = rng.choice([old + 1, old - 1, old * 2, old // 2, old * 1000, -old, rng.randrange(0, 64)])
    else:
        holder[key] = old * rng.choice([0.5, 2.0, -1.0, 1e-3, 1e3, 1e9, 1e-9, 1.1])


def _text(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    text = rng.choice(TEXTS)
    holder[key] = text(rng) if callable(text) else text


def _named(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    """A text that is still one, with something in it that no terminal should see."""
    texts = [slot for slot in _slots(data) if isinstance(slot[0][slot[1]], str)]
    if texts:
        names = [slot for slot in texts if slot[1] in _NAMES]
        holder, key = rng.choice(names if names and rng.random() < 0.6 else texts)
        old = holder[key]
        at = rng.randrange(len(old) + 1)
        holder[key] = old[:at] + rng.choice(_UNSEEN) + old[at:]


_NAMES = ("name", "id", "source", "description", "notes", "machine", "library", "impl", "model_type", "fingerprint")
_UNSEEN = [
    "\x1b[31m",
    "\x1b]0;t\x07",
    "\r",
    "\n",
    "\t",
    "\x00",
    "\x9b1m",
    "\u202e",
    "\u2028",
    "\ud800",
    "\x7f",
    "é",
    "|",
]


def _added(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    """A key that other files of the kind have."""
    target = holder if isinstance(holder, dict) else data
    target[rng.choice(_OTHERS)] = rng.choice([None, None, {}, [], 0, 1, "x", rng.choice(NUMBERS)])


_OTHERS = [
    "quantization_config", "text_config", "rope_scaling", "head_dim", "sliding_window", "num_experts", "q_lora_rank",
    "layer_types", "index_topk", "width", "attn_dp", "algorithm", "inter_node", "transferred_because", "fingerprint",
    "pin", "forbid", "limits", "search", "predicted", "head_in", "not_comparable", "op", "kernels", "gemms", "ops",
]  # fmt: skip


def _retyped(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    old = holder[key]
    holder[key] = rng.choice([str(old)[:2000], [old], {"value": old}, {}, [], True, [old, old], {str(key): old}])


def _renamed(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    if not isinstance(holder, dict):
        return _swapped(holder, key, rng, raw, data)
    others = [k for other, k in _slots(data) if isinstance(other, dict)]
    name = rng.choice([key[:-1], key + "s", key.upper(), "", rng.choice(others), "\x1b[31m" + key, "<<", "__class__"])
    items = [(name if k == key else k, v) for k, v in holder.items()]
    holder.clear()
    holder.update(items)
    return None


def _doubled(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    if isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice([1, 1, 3, 2000])
    else:
        holder[_raw(raw, json.dumps(key))] = copy.deepcopy(holder[key])


def _swapped(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    """Another part of the file in this place."""
    other, name = rng.choice(list(_slots(data)))
    holder[key] = copy.deepcopy(other[name])


def _reordered(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    if isinstance(holder, list):
        rng.shuffle(holder)
    else:
        items = list(holder.items())
        rng.shuffle(items)
        holder.clear()
        holder.update(items)


def _hostile(holder: Any, key: Any, rng: random.Random, raw: dict[str, str], data: Any) -> None:
    """What YAML has beside plain values."""
    holder[key] = _raw(raw, rng.choice(HOSTILE)(rng))


_CHANGES = {
    _named: 7, _added: 2, _delete: 4, _null: 3, _number: 5, _scaled: 6, _text: 5, _retyped: 4, _renamed: 4,
    _doubled: 3, _swapped: 3, _reordered: 1, _hostile: 4,
}  # fmt: skip

NUMBERS = [
    0, -1, 1, 2, 3, 7, 63, 1000, 10**5, 2**31 - 1, 2**31, 2**53, 2**63, 2**64 + 1, 10**30, -(10**30), 10**60, 0.0, -0.0,
    0.5, 1.5, 1e-12, 1e-320, 1e15, 1e16, 1e150, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), True,
]  # fmt: skip
TEXTS: list[Any] = [
    "", " ", "x", "null", "0-2", "0-99999", "5-1", "\n", "a\nb", "a\tb", "\x1b[31mred", "\x1b]0;title\x07", "\x9b31m",
    "\u202egnp.exe", "\u2028", "\u200b", "\x7f", "\x00", "\ud800", "\U0001f600", "ünïcode", "%s %n {0} {x}", "../../x",
    "/dev/zero", "/dev/null", "/", ".", "~", "deployment.yaml", "hardware.yaml", "model.yaml", "strategy.yaml", "$HOME",
    "qwen3-32b", "h200-8", "h200-sxm", "transformers", "sglang", "plan_only", "int8_all_reduce", "reduce_scatter",
    "all_gather", "latent_all_gather", "two_shot", "none", "fused", "prefill", "mixed", "quantized", "exact", "-o",
    "kimi_k2", "deepseek_v3", "qwen3", "DeepseekV3ForCausalLM", "Qwen2ForCausalLM", "fp8", "int8", "nccl", "gloo",
    "[bold]x[/bold]", "<script>alert(1)</script>", "=1+1", "'", '"', "\\", "#", "@@0@@",
    lambda rng: "x" * rng.choice([1000, 200_000]), lambda rng: "\x1b" * 3000, lambda rng: "a/" * 3000,
    lambda rng: "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(20)),
]  # fmt: skip
HOSTILE: list[Callable[[random.Random], str]] = [
    lambda rng: "&a 3",
    lambda rng: "*a",
    lambda rng: "&a [*a]",
    lambda rng: "[&l0 [x, x], " + ", ".join(f"&l{i} [*l{i - 1}, *l{i - 1}]" for i in range(1, 40)) + "]",
    lambda rng: '!!python/object/apply:os.system ["touch ran"]',
    lambda rng: "!!python/name:os.system ''",
    lambda rng: rng.choice(["!!str 3", "!!int x", "!x 3", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]", "! 3"]),
    lambda rng: "[" * (depth := rng.choice([30, 60, 5000])) + "]" * depth,
    lambda rng: "{a: " * (depth := rng.choice([30, 60, 5000])) + "1" + "}" * depth,
    lambda rng: "[" * 500,
    lambda rng: rng.choice(["0x1f", "0o17", "1_000", "1:30", "1e5", "+5", ".5", "5.", "1e999", "-.inf", ".NaN"]),
    lambda rng: rng.choice(
        ["yes", "NO", "on", "~", "2026-01-01", "y", "=", "<<", "'a''b'", '"\\x1b[31m"', '"\\ud800"']
    ),
    lambda rng: "9" * rng.choice([20, 41, 5000]),
    lambda rng: "? a",
    lambda rng: "{a: 1, a: 2}",
    lambda rng: "[" + "1, " * rng.choice([10, 20_000]) + "1]",
    lambda rng: "3 # comment\n",
    lambda rng: "%TAG ! x",
    lambda rng: "|\n  text",
    lambda rng: "3\n---\nname: other",
    lambda rng: "3\n...\n",
]


# ---- bytes and places ------------------------------------------------------------------------------------------------


def _bytes(path: Path, rng: random.Random) -> str:
    """The text as bytes: cut, flipped, stuffed, in another encoding."""
    content = path.read_bytes()
    name = rng.choice(list(_BYTES))
    at = rng.randrange(len(content) + 1)
    path.write_bytes(_BYTES[name](content, at, rng))
    return f"bytes: {name} at {at}"


_BYTES: dict[str, Callable[[bytes, int, random.Random], bytes]] = {
    "truncated": lambda b, at, rng: b[:at],
    "beginning lost": lambda b, at, rng: b[at:],
    "bit flipped": lambda b, at, rng: (
        b[:at] + bytes([b[at] ^ (1 << rng.randrange(8))]) + b[at + 1 :] if at < len(b) else b
    ),
    "byte inserted": lambda b, at, rng: (
        b[:at] + rng.choice([b"\0", b"\x1b", b"\xff", b"\t", b"{", b"'", b"&", b"\r"]) + b[at:]
    ),
    "invalid UTF-8": lambda b, at, rng: b[:at] + rng.choice([b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88"]) + b[at:],
    "span lost": lambda b, at, rng: b[:at] + b[at + rng.randrange(1, 200) :],
    "span doubled": lambda b, at, rng: b[: at + rng.randrange(1, 200)] + b[at:],
    "byte order mark": lambda b, at, rng: b"\xef\xbb\xbf" + b,
    "CRLF": lambda b, at, rng: b.replace(b"\n", b"\r\n"),
    "CR": lambda b, at, rng: b.replace(b"\n", b"\r"),
    "UTF-16": lambda b, at, rng: b.decode("latin-1").encode("utf-16"),
    "empty": lambda b, at, rng: b"",
    "NULs": lambda b, at, rng: bytes(len(b)),
    "noise": lambda b, at, rng: rng.randbytes(300),
    "second document": lambda b, at, rng: b + b"---\n" + b,
    "another text": lambda b, at, rng: rng.choice(
        [b"3\n", b"- a\n", b"null\n", b"[]\n", b"{}\n", b"# nothing\n", b'"a"\n']
    ),
    "too large": lambda b, at, rng: b + b"# \n" * 3_000_000,
    "line moved": lambda b, at, rng: _line_moved(b, rng),
}


def _line_moved(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        line = lines.pop(rng.randrange(len(lines)))
        lines.insert(rng.randrange(len(lines) + 1), rng.choice([line, b"  " + line, line.lstrip()]))
    return b"".join(lines)


def _place(path: Path, rng: random.Random) -> str:
    """Something else where the file should be."""
    what = rng.choice(["nothing", "a folder", "a link to itself", "a link to nowhere", "a pipe", "/dev/zero", "a link"])
    content = path.read_bytes()
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path.name)
    elif what == "a link to nowhere":
        path.symlink_to("nowhere")
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "/dev/zero":
        path.symlink_to("/dev/zero")
    elif what == "a link":
        target = path.with_name("elsewhere" + path.suffix)
        target.write_bytes(content)
        path.symlink_to(target.name)
    return f"place: {what}"
