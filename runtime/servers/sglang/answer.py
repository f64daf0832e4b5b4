"""The answer of a server to GET /server_info, read strictly: whoever listens on that port may send anything.

Only the host that the user named is asked, no redirect is followed, and what comes is bounded in bytes and time. The
answer carries the text of the plan, so that no file is opened because a server names it.
"""

from __future__ import annotations

import threading
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from commplan.planner.strategy.file import FORWARD_MODES, InputError, control_character, parse_json

from ...errors import RefusedError

MOST_BYTES = 32 * 1024 * 1024
_LARGEST = 2**63 - 1
_LONGEST = 1000
_LONGEST_PLAN = 1024 * 1024  # takes seconds to read; those of 61 layers have some 10,000 characters
_NO_PLAN = "the server runs without a plan; start it with commplan launch sglang"


# ---- asking ----------------------------------------------------------------------------------------------------------


class _NoRedirects(HTTPRedirectHandler):
    """A server may not send us to another place: its redirect is an error like any other status."""

    def redirect_request(self, *_: Any) -> Request | None:
        return None


def ask(url: str, timeout_s: float) -> dict[str, Any]:
    """What a server says of its plan; raises RefusedError where none comes in time, or it is of another shape."""
    if not _is_server(url):
        raise RefusedError("http://HOST:PORT is expected", field="--server", value=url)
    found: list[bytes | Exception] = []
    asking = threading.Thread(target=_fetch, args=(url, timeout_s, found), daemon=True)
    asking.start()
    asking.join(timeout_s)  # as a whole: the timeout of a socket is that of each of its reads
    answer = found[0] if found else TimeoutError(f"it has not ended after {timeout_s:g} s")
    if isinstance(answer, Exception):
        raise _refused(url, f"no answer from an SGLang server: {str(answer)[:200] or type(answer).__name__}")
    if len(answer) > MOST_BYTES:
        raise _refused(url, f"the answer has more than {MOST_BYTES} bytes")
    try:
        info = parse_json(answer.decode("utf-8"))
    except (InputError, ValueError) as error:
        raise _refused(url, f"the answer is not that of an SGLang server: {str(error)[:200]}") from None
    try:
        return _told(info)
    except _ShapeError as error:
        raise _refused(url, f"the answer is not that of an SGLang server under a plan: {error}") from None


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = parts.hostname is not None and parts.port != 0
    except ValueError:
        return False
    return named and parts.scheme in ("http", "https") and parts.username is None and control_character(url) is None


def _fetch(url: str, timeout_s: float, found: list[bytes | Exception]) -> None:
    opener = build_opener(ProxyHandler({}), HTTPHandler(), HTTPSHandler(), _NoRedirects())
    try:
        with opener.open(url.rstrip("/") + "/server_info", timeout=timeout_s) as answer:
            found.append(answer.read(MOST_BYTES + 1))
    except (OSError, ValueError, HTTPException) as error:
        found.append(error)


def _refused(url: str, why: str) -> RefusedError:
    return RefusedError(why, field="--server", value=url)


# ---- its shape -------------------------------------------------------------------------------------------------------


class _ShapeError(Exception):
    """Something is not what a server under a plan says; the message names the field."""


def _told(info: Any) -> dict[str, Any]:
    """The part of the answer that is ours."""
    states = _list(_mapping(info, "the answer").get("internal_states"), "internal_states")
    if not states or "commplan" not in _mapping(states[0], "internal_states[0]"):
        raise _ShapeError(_NO_PLAN)
    told = _fields(states[0]["commplan"], "commplan", file=_text, plan=_text, strategy=_plan, ranks=_list)
    if not told["ranks"]:
        raise _ShapeError("commplan.ranks is empty")
    told["ranks"] = [_rank(rank, f"commplan.ranks[{index}]") for index, rank in enumerate(told["ranks"])]
    return told


def _rank(value: Any, where: str) -> dict[str, Any]:
    rank = _fields(value, where, forwards=_list, ops=_list, unplanned=_mapping)
    rank["forwards"] = [_forwards(item, f"{where}.forwards[{index}]") for index, item in enumerate(rank["forwards"])]
    rank["ops"] = [_op(item, f"{where}.ops[{index}]") for index, item in enumerate(rank["ops"])]
    rank["unplanned"] = {
        _mode(mode, f"{where}.unplanned"): _count(count, f"{where}.unplanned.{mode}")
        for mode, count in rank["unplanned"].items()
    }
    return rank


def _forwards(value: Any, where: str) -> dict[str, Any]:
    counts = dict.fromkeys(("range", "forwards", "rows", "idle"), _count)
    found = _fields(value, where, mode=_mode, tokens=_list, **counts)
    if len(found["tokens"]) != 2:
        raise _ShapeError(f"{where}.tokens has {len(found['tokens'])} counts, not 2")
    found["tokens"] = [_count(count, f"{where}.tokens") for count in found["tokens"]]
    return found


def _op(value: Any, where: str) -> dict[str, Any]:
    texts, counts = dict.fromkeys(("boundary", "op", "impl"), _text), dict.fromkeys(("calls", "rows"), _count)
    return _fields(value, where, mode=_mode, layer=_layer, wire_bytes=_bytes, **texts, **counts)


def _fields(value: Any, where: str, **fields: Any) -> dict[str, Any]:
    """A mapping of exactly these fields, each read by its reader."""
    data = _mapping(value, where)
    if set(data) != set(fields):
        missing, other = sorted(set(fields) - set(data)), [str(key)[:40] for key in sorted(set(data) - set(fields))]
        raise _ShapeError(f"{where} lacks {', '.join(missing)}" if missing else f"{where} holds {', '.join(other[:5])}")
    return {name: read(data[name], f"{where}.{name}") for name, read in fields.items()}


def _mapping(value: Any, where: str) -> dict[str, Any]:
    return dict(_typed(value, where, dict, "a mapping"))


def _list(value: Any, where: str) -> list[Any]:
    return list(_typed(value, where, list, "a list"))


def _text(value: Any, where: str) -> str:
    text = str(_typed(value, where, str, "a text"))
    if not text or len(text) > _LONGEST or control_character(text) is not None:
        raise _ShapeError(f"{where} is no plain text of 1 to {_LONGEST} characters")
    return text


def _plan(value: Any, where: str) -> str:
    text = str(_typed(value, where, str, "the text of a plan"))  # which has a reader of its own
    if len(text) > _LONGEST_PLAN:
        raise _ShapeError(f"{where} has more than {_LONGEST_PLAN} characters")
    return text


def _mode(value: Any, where: str) -> str:
    if value not in FORWARD_MODES:
        raise _ShapeError(f"{where} is none of {', '.join(FORWARD_MODES)}")
    return str(value)


def _count(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise _ShapeError(f"{where} is no count")
    return value


def _bytes(value: Any, where: str) -> float:
    if type(value) is not float or not 0 <= value <= _LARGEST:
        return _count(value, where)
    return value


def _layer(value: Any, where: str) -> int | None:
    return None if value is None else _count(value, where)


def _typed(value: Any, where: str, of: type, expected: str) -> Any:
    if type(value) is not of:
        raise _ShapeError(f"{where} is not {expected}")
    return value
