"""The script against fake servers: what is kept, what is asked again, what happens when servers fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).parent / "fake_server.py"
Run = Callable[..., str]


@pytest.fixture
def run(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The script with servers that behave as said, `serves` where nothing is said; what it printed."""

    def script(*words: str, **behaviours: str) -> str:
        def fake(name: str, *_: object) -> list[str]:
            return [sys.executable, "-I", str(FAKE), behaviours.get(name, "serves")]

        monkeypatch.setattr(bench.script, "command_of", fake)
        options = ["--rows", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--layers", "2"]
        few = ["--batches", "", "--repetitions", "2", "--starts", "1", "--minutes", "1.2"]
        monkeypatch.setattr(sys, "argv", ["sglang.py", *options, *few, *words])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            bench.script.main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        return capsys.readouterr().out

    return script


def kept(tmp_path: Path, what: str = "ttft") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    return [row for row in rows if row["what"] == what]


@pytest.mark.slow
def test_servers_of_a_group_are_asked_and_rows_kept_and_nothing_is_measured_twice(
    run: Run, bench, tmp_path: Path
) -> None:
    samples = 2 * bench.measuring.OFTEN  # a short prompt is asked more often
    both = ("--configurations", "unmodified,no_prefill_graphs", "--beside", "2")
    said = run(*both, "--tokens", "16")
    assert said.endswith("all is there\n")
    assert [(row["configuration"], row["tokens"], len(row["ms"])) for row in kept(tmp_path)] == [
        ("unmodified", 16, samples),
        ("no_prefill_graphs", 16, samples),
    ]
    run(*both, "--tokens", "16,64")
    assert [row["tokens"] for row in kept(tmp_path)] == [16, 16, 64, 64]
    before = (tmp_path / "rows.jsonl").read_text()
    assert run(*both, "--tokens", "16,64").endswith("all is there\n")
    assert (tmp_path / "rows.jsonl").read_text() == before
    shown = run("--show", "--markdown")
    assert "| unmodified: SGLang by all its defaults |" in shown
    assert "not yet there" not in shown


@pytest.mark.slow
def test_a_server_that_does_not_start_shows_its_log_and_the_others_are_measured(run: Run, tmp_path: Path) -> None:
    names = ("--configurations", "unmodified,layernorm_sp,no_prefill_graphs", "--beside", "3")
    said = run(*names, "--tokens", "16", layernorm_sp="fails")
    assert "layernorm_sp: ended with 1" in said and "no such kernel image is available" in said
    assert {row["configuration"] for row in kept(tmp_path)} == {"unmodified", "no_prefill_graphs"}
    assert [row["up"] for row in kept(tmp_path, "server")] == [True, False, True]
    assert "not yet there, so call again: start 1 of unmodified | layernorm_sp | no_prefill_graphs: 1 of 1" in said


@pytest.mark.slow
def test_a_server_that_dies_is_left_out_from_then_on(run: Run, tmp_path: Path) -> None:
    names = ("--configurations", "unmodified,no_prefill_graphs", "--beside", "2")
    said = run(*names, "--tokens", "16,64", no_prefill_graphs="dies")
    assert "no_prefill_graphs: failed with" in said and "a kernel gave up" in said
    found = [(row["configuration"], row["tokens"]) for row in kept(tmp_path)]
    assert found == [("unmodified", 16), ("no_prefill_graphs", 16), ("unmodified", 64)]


class Clock:
    """A server whose answers take what they are said to."""

    def __init__(self, name: str, ms: Callable[[int], float]) -> None:
        self.name, self.ms = name, ms
        self.asked: list[int] = []

    def generate(self, prompts: list[list[int]], new_tokens: int, timeout_s: float) -> tuple[float, None]:
        self.asked.append(len(prompts))
        return self.ms(new_tokens), None


def test_of_a_decode_a_step_is_what_the_tokens_after_the_first_take_each(bench) -> None:
    server = Clock("x", lambda n: 30.0 + 2.5 * (n - 1))
    turns = bench.measuring.Turns([server], 3, 100, float("inf"))
    (row,) = bench.measuring.decode(turns, 4, 41)
    assert row == {"what": "decode", "configuration": "x", "batch": 4, "new_tokens": 41, "ms": [2.5, 2.5, 2.5]}
    assert set(server.asked) == {4}


def test_turns_of_warm_up_do_not_count_and_servers_are_asked_in_turn(bench) -> None:
    order: list[str] = []
    servers = [Clock(name, lambda n, name=name: order.append(name) or 1.0) for name in "ab"]  # type: ignore[misc]
    turns = bench.measuring.Turns(servers, 2, 100, float("inf"))
    assert [row["ms"] for row in bench.measuring.ttft(turns, bench.measuring.SHORT)] == [[1.0, 1.0], [1.0, 1.0]]
    assert "".join(order) == "abbaabba"


def test_with_the_time_over_nobody_is_asked(bench) -> None:
    turns = bench.measuring.Turns([Clock("x", lambda n: 1.0)], 2, 100, 0.0)
    assert list(bench.measuring.ttft(turns, 8)) == []


def test_what_was_tried_least_comes_first(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--rows", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path), "--layers", "2", "--beside", "2"]
    options = bench.script._parser().parse_args([*words, "--configurations", "unmodified,bound,again", "--starts", "2"])
    script = bench.script.Bench(options)
    assert [group for _, group, _ in script.missing()][:2] == [["unmodified", "bound"], ["unmodified", "again"]]
    write = bench.kept.Writer(options.rows, **script.shared, start=1, group="unmodified+bound", run="a")
    write(what="server", configuration="bound", up=False)
    assert [(start, group[1]) for start, group, _ in script.missing()] == [
        (1, "again"),
        (2, "bound"),
        (2, "again"),
        (1, "bound"),
    ]


def test_every_process_of_a_server_ends_with_it(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.running, "_GRACE_S", 0.5)
    command = [sys.executable, "-I", str(FAKE), "forks"]
    server = bench.running.Server("x", command, os.environ, bench.running.free_port(set()), tmp_path / "log")
    try:
        assert bench.running.wait_for_all([server], 20) == [server]
        assert len(bench.running.members(server.process.pid)) == 2
    finally:
        server.end()
    assert bench.running.members(server.process.pid) == []


def test_a_server_sees_no_proxy_and_no_plan_but_its_own(bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"HTTPS_PROXY": "x", "COMMPLAN_STRATEGY": "y", "PYTHONPATH": "z"}.items():
        monkeypatch.setenv(name, value)
    unmodified = bench.running.environment(None, None, {})
    assert not {"HTTPS_PROXY", "COMMPLAN_STRATEGY"} & set(unmodified)
    assert unmodified["NCCL_NVLS_ENABLE"] == "0"
    planned = bench.running.environment(tmp_path / "plan.yaml", tmp_path, {"NCCL_P2P_DISABLE": "1"})
    assert planned["COMMPLAN_STRATEGY"] == str(tmp_path / "plan.yaml")
    assert planned["PYTHONPATH"] == f"{tmp_path}{os.pathsep}z"
    assert planned["NCCL_P2P_DISABLE"] == "1"


def test_the_script_asks_for_known_configurations_alone(bench) -> None:
    done = subprocess.run(
        [sys.executable, str(bench.folder / "sglang.py"), "--configurations", "fastest"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "fastest is none of unmodified, again" in done.stderr
