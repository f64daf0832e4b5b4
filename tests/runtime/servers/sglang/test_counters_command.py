"""`commplan counters` reads a server's answer strictly: whatever a server sends is one line and exit code 2."""

from __future__ import annotations

import copy
import http.server
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commplan.planner.strategy.file import dump, places, plan_hash, save
from commplan.runtime.bound.counts import impl_of
from commplan.runtime.servers.sglang import answer as answers
from commplan.runtime.servers.sglang import scheduler

from ....planner.cli.commandline import Result, run
from .fakes import strategy

FILE = strategy()


def rank() -> dict[str, Any]:
    """Three forwards in every range, executed as planned."""
    forwards, ops = [], {}
    for mode, ranges in FILE.modes.items():
        for index, plan in enumerate(ranges):
            told = {
                "mode": mode,
                "range": index,
                "tokens": [plan.first, plan.last],
                "forwards": 3,
                "rows": 9,
                "idle": 0,
            }
            forwards.append(told)
            for layer, boundary, op in places(plan):
                if op.name != "none":
                    key = {"mode": mode, "layer": layer, "boundary": boundary, "op": str(op), "impl": impl_of(op, FILE)}
                    found = ops.setdefault(str(key), {**key, "calls": 0, "rows": 0, "wire_bytes": 0.0})
                    found["calls"] += 3
    return {"forwards": forwards, "ops": list(ops.values()), "unplanned": {}}


def info() -> dict[str, Any]:
    told = {"file": "plan.yaml", "plan": plan_hash(FILE), "strategy": dump(FILE), "ranks": [rank(), rank()]}
    return {"internal_states": [{"last": 1.5, "commplan": told}], "version": "0.5.23", "more": [{"a": None}]}


class Server:
    """Serves one answer, whatever is asked; `asked` are the paths."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.respond: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda _: None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                try:
                    outer.respond(self)
                except OSError:
                    return  # the client has had enough

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, body: bytes | object, *options: object) -> Result:
        """What `commplan counters` makes of a body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(data)

        self.respond = respond
        return run("counters", "--server", self.url, *options)


@pytest.fixture(scope="module")
def _server() -> Iterator[Server]:
    found = Server()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def server(_server: Server) -> Server:
    _server.asked.clear()
    return _server


def assert_refused(result: Result, *words: str) -> None:
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert all(c == "\n" or c.isprintable() for c in result.err)
    assert len(result.err) < 1500
    for word in words:
        assert word in result.err


def test_the_plan_comes_with_the_answer_and_no_file_is_needed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = server.answer(info())
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"plan {plan_hash(FILE)} (plan.yaml)\n")
    assert result.out.count("executed ops: forwards x plan") == 2
    assert server.asked == ["/server_info"]
    told = server.answer(info(), "--json").json
    assert told["differences"] == [[], []]


def test_what_a_scheduler_tells_is_what_is_read(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks that have run nothing yet, by the hook itself; a folder of the server stays its own."""
    monkeypatch.setattr(scheduler, "_everyone", lambda mine, _: [mine, mine])
    hooks = scheduler.SchedulerHooks(FILE, "a/folder/of/the/server/plan.yaml")
    output = hooks.around_internal_state(
        lambda *_: SimpleNamespace(internal_state={"last": 1.5}), SimpleNamespace(tp_cpu_group=None), None
    )
    told = {"internal_states": [output.internal_state]}
    assert "folder" not in json.dumps(told)
    result = server.answer(told)
    assert (result.code, result.err) == (0, "")
    assert result.out.count("executed ops: forwards x plan") == 2


def test_what_ran_beside_the_plan_is_found_by_its_own_text(server: Server) -> None:
    told = info()
    told["internal_states"][0]["commplan"]["ranks"][1]["ops"][0]["calls"] += 1
    result = server.answer(told)
    assert result.code == 4
    assert result.out.count("executed ops: DIFFERENT") == 1


@pytest.mark.parametrize("named", ["/etc/passwd", "/proc/self/environ", "plan.yaml", "../plan.yaml"])
def test_no_file_is_opened_because_a_server_names_it(
    named: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(FILE, tmp_path / "plan.yaml")
    told = info()
    told["internal_states"][0]["commplan"]["file"] = named
    opened: list[object] = []
    monkeypatch.setattr("commplan.planner.strategy.yaml_file.read_text", opened.append)
    monkeypatch.setattr("commplan.planner.strategy.file.reading.read_text", opened.append)
    assert server.answer(told).code == 0
    del told["internal_states"][0]["commplan"]["strategy"]
    assert_refused(server.answer(told), "lacks strategy")
    assert opened == []


def test_the_file_that_the_user_names_must_be_the_servers_plan(server: Server, tmp_path: Path) -> None:
    save(FILE, tmp_path / "plan.yaml")
    save(strategy(numerics="quantized"), tmp_path / "other.yaml")
    assert server.answer(info(), "--strategy", tmp_path / "plan.yaml").code == 0
    assert_refused(server.answer(info(), "--strategy", tmp_path / "other.yaml"), "is not the plan of the server")
    assert_refused(server.answer(info(), "--strategy", tmp_path / "none.yaml"), "no such file")


BODIES = {
    "nothing": b"",
    "no JSON": b"<html>",
    "not UTF-8": b"\xff\xfe{}",
    "deep lists": b"[" * 200_000,
    "deep mappings": b'{"a":' * 100_000,
    "a list": b"[1,2]",
    "null": b"null",
    "a number": b"1" * 100_000,
    "NaN": b'{"internal_states": [NaN]}',
    "twice": b'{"internal_states": [], "internal_states": []}',
    "no states": b"{}",
    "empty states": b'{"internal_states": []}',
    "states as text": b'{"internal_states": "abc"}',
    "states as number": b'{"internal_states": 5}',
    "state as number": b'{"internal_states": [7]}',
    "no plan": b'{"internal_states": [{}]}',
    "plan as text": b'{"internal_states": [{"commplan": "str"}]}',
    "empty plan": b'{"internal_states": [{"commplan": {}}]}',
    "control characters": json.dumps({"internal_states": [{"commplan": {"\x1b[2J": 1}}]}).encode(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_what_is_no_answer_is_one_line(body: bytes, server: Server) -> None:
    assert_refused(server.answer(body), "--server")


def places_within(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places_within(child, (*path, key))


WHERE = list(places_within(info()["internal_states"][0]["commplan"]))
ODD: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    1e300,
    "",
    "x" * 2000,
    "\x1b[2J",
    "decode",
    [],
    [[]],
    {},
    {"a": 1},
    [0, 0],
]


@pytest.mark.parametrize("plan", ["\ud800", f"x: [{'a, ' * 500_000}a]\nend: true\n"], ids=["half a character", "long"])
def test_a_plan_that_is_no_text_or_takes_minutes_to_read_is_one_line(plan: str, server: Server) -> None:
    told = info()
    told["internal_states"][0]["commplan"]["strategy"] = plan
    started = time.process_time()
    assert_refused(server.answer(told), "--server")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("seed", range(150))
def test_an_answer_with_anything_anywhere_is_one_line_or_an_honest_comparison(seed: int, server: Server) -> None:
    """One field of ours replaced, left out or added: refused, or compared as what it says."""
    draw = random.Random(seed)
    told = info()
    path, odd = draw.choice(WHERE[1:]), copy.deepcopy(draw.choice(ODD))
    where = told["internal_states"][0]["commplan"]
    for key in path[:-1]:
        where = where[key]
    if seed % 3 == 0:
        del where[path[-1]]
    elif seed % 3 == 1 and isinstance(where, dict):
        where["other"] = odd
    else:
        where[path[-1]] = odd
    result = server.answer(told)
    if result.code == 2:
        assert_refused(result, "--server")
    else:
        assert result.code in (0, 4), result
        assert all(c == "\n" or c.isprintable() for c in result.out)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.update(plan="0" * 16), "is not the plan of the server"),
        (lambda told: told.update(strategy=told["strategy"][:-20]), "the plan that the server sends"),
        (lambda told: told["ranks"].pop(), "1 ranks where the plan has 2"),
        (lambda told: told["ranks"][0]["forwards"][0].update(range=7), "no range 7"),
        (lambda told: told["ranks"][0]["forwards"][0].update(mode="mixed"), "no range 0 of mixed"),
        (lambda told: told["ranks"][0]["forwards"][0].update(tokens=[1, 99]), "with tokens [1, 99]"),
    ],
)
def test_an_answer_that_contradicts_its_plan_is_refused(
    change: Callable[[dict[str, Any]], object], words: str, server: Server
) -> None:
    told = info()
    change(told["internal_states"][0]["commplan"])
    assert_refused(server.answer(told), words)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["http", "file", "ftp"])
def test_no_redirect_is_followed(status: int, scheme: str, server: Server) -> None:
    other = Server()
    place = f"{other.url}/elsewhere" if scheme == "http" else f"{scheme}://127.0.0.1/etc/passwd"

    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", place)
        handler.end_headers()

    server.respond = respond
    assert_refused(run("counters", "--server", server.url), str(status))
    assert (server.asked, other.asked) == (["/server_info"], [])
    other.server.shutdown()
    other.server.server_close()


def test_a_proxy_of_the_environment_is_not_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Server()
    monkeypatch.setenv("http_proxy", proxy.url)
    assert server.answer(info()).code == 0
    assert (server.asked, proxy.asked) == (["/server_info"], [])
    proxy.server.shutdown()
    proxy.server.server_close()


def test_an_answer_without_end_is_left_at_its_bound(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 100_000)

    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"[" * 4096)

    server.respond = respond
    assert_refused(run("counters", "--server", server.url), "more than 100000 bytes")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["headers", "body", "silence"])
def test_an_answer_that_drips_ends_with_the_timeout(part: str, server: Server) -> None:
    """Each byte comes in time, and the whole never does."""
    end = time.monotonic() + 20

    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        if part == "body":
            handler.send_response(200)
            handler.end_headers()
        while time.monotonic() < end:
            if part != "silence":
                handler.wfile.write(b"H")
                handler.wfile.flush()
            time.sleep(0.1)

    server.respond = respond
    start = time.monotonic()
    assert_refused(run("counters", "--server", server.url, "--timeout", 1))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://",
        "http://[::1",
        "http://127.0.0.1:b",
        "http://127.0.0.1 b/",
        "file:///etc/passwd",
        "http://u:p@127.0.0.1:1/",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert_refused(run("counters", "--server", url), "--server")


def test_nobody_there_is_one_line() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        assert_refused(run("counters", "--server", url), "no answer", url)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00\x01\x02\r\n\r\n",
        b"HTTP/1.1 999999 \x1b[2J\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_what_is_no_http_is_one_line(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        assert_refused(run("counters", "--server", f"http://127.0.0.1:{listening.getsockname()[1]}", "--timeout", 5))
