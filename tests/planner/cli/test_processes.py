"""The command as a process: exit codes, streams, a reader that goes away, a terminal or none."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

COMMPLAN = Path(sys.executable).parent / "commplan"
SMALL = "qwen3-0.6b-cpu-tp2"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not COMMPLAN.exists(), reason="the command is not installed beside this Python"),
]


def process(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [COMMPLAN, *arguments], capture_output=True, text=True, check=False, timeout=600, cwd=cwd, env=environment
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["plan", SMALL], 0),
        (["plan", "no-such-preset"], 2),
        (["plan", SMALL, "--set=parallelism.tp=3"], 2),
        (["plan", SMALL, "--set=numerics.pin=[{op: none, boundary: mlp_out}]"], 3),
        (["plan"], 2),
        (["validate", "no-such-file"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    plain, as_json = process(*arguments), process(*arguments, "--json")
    assert (plain.returncode, as_json.returncode) == (code, code)
    assert "Traceback" not in plain.stderr + as_json.stderr
    assert as_json.stderr == ""
    answer = json.loads(as_json.stdout)
    if arguments[0] == "plan":
        assert ("error" in answer) == (code != 0)


LATE_GATHER = ("explain", "deepseek-v3-a3-tp16", "--layer", "20", "--boundary", "attn_in")
PIN = "--set=numerics.pin=[{op: reduce_scatter, boundary: mlp_out}]"  # leaves a shard to the head
NO_PLAN = ("plan", "qwen3-235b-h200-dp4", "--set=executor=sglang", PIN)
QUESTIONS = [("plan", "deepseek-v3-a3-tp16"), LATE_GATHER, NO_PLAN]


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("seed", ["0", "1"])
def test_answers_do_not_depend_on_the_order_of_hashes(question: tuple[str, ...], seed: str, tmp_path: Path) -> None:
    """Nor on the working directory."""
    here = process(*question, "--json", PYTHONHASHSEED="3").stdout
    assert process(*question, "--json", cwd=tmp_path, PYTHONHASHSEED=seed).stdout == here


def test_a_reader_that_goes_away_causes_no_traceback() -> None:
    piped = subprocess.run(
        ["bash", "-c", f"{COMMPLAN} presets | head -1"], capture_output=True, text=True, check=True, timeout=600
    )
    assert piped.stdout == "deployments\n"
    assert "Traceback" not in piped.stderr


def test_a_name_that_is_not_utf8_is_refused_like_any_other() -> None:
    done = subprocess.run(
        [str(COMMPLAN).encode(), b"plan", b"\xff.yaml"], capture_output=True, check=False, timeout=600
    )
    assert done.returncode == 2
    assert b"no such file" in done.stderr and b"Traceback" not in done.stderr


def test_an_ascii_terminal_gets_its_answer() -> None:
    done = process("plan", "deepseek-r1-h20-tp8", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_colours_appear_on_a_terminal_alone() -> None:
    assert "\x1b" not in process("plan", SMALL).stdout
    assert b"\x1b[1m" in on_a_terminal("plan", SMALL)
    assert b"\x1b[31m" in on_a_terminal("plan", "zzz")


def on_a_terminal(*arguments: str) -> bytes:
    """What the command prints where both its streams are a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([COMMPLAN, *arguments], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(ours)
        child.wait(timeout=600)
    return shown
