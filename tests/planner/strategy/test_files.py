"""A write is whole or has never been: not after a signal at any moment, not on a full disk, not beyond a limit."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from commplan.planner.strategy import files
from commplan.planner.strategy.errors import InputError, OverwriteError
from commplan.planner.strategy.files import name_target, one_command, read_text, write_text_atomically

OLD, NEW = "old\n" * 1000, "new\n" * 100_000
ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
WRITER = """
import os, sys, time
from commplan.planner.strategy.files import write_text_atomically
path, text = sys.argv[1], "new\\n" * 100_000
"""
SLOW = """
honest = os.fsync
def fsync(handle):
    print("writing", flush=True)
    time.sleep(60)
os.fsync = fsync
write_text_atomically(path, text)
"""
AGAIN_AND_AGAIN = """
print("writing", flush=True)
while True:
    write_text_atomically(path, text)
"""


def writer(script: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER + script, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.write_text(OLD)
    return path


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_while_a_file_is_being_filled_leaves_the_old_one_and_ends_the_process(
    number: int, target: Path
) -> None:
    process = writer(SLOW, target)
    process.send_signal(number)
    assert process.wait(30) == -number
    assert target.read_text() == OLD
    assert os.listdir(target.parent) == ["out"]


@pytest.mark.parametrize("seed", range(12))
def test_a_signal_at_any_moment_leaves_one_whole_file_and_no_other(seed: int, target: Path) -> None:
    process = writer(AGAIN_AND_AGAIN, target)
    time.sleep(random.Random(seed).uniform(0, 0.05))
    process.send_signal(ENDING[seed % 2])
    try:
        assert process.wait(30) == -ENDING[seed % 2]
    finally:
        process.kill()  # started where a signal is ignored, it would write for ever
    assert target.read_text() in (OLD, NEW)
    assert os.listdir(target.parent) == ["out"]


def test_a_signal_that_is_ignored_stays_ignored(target: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with_signal(target, signal.SIGHUP)
        assert target.read_text() == NEW
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_the_caller_is_called_once_and_put_back(target: Path) -> None:
    seen: list[int] = []

    def handler(number: int, _: object) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            with_signal(target, signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert target.read_text() == OLD
    assert os.listdir(target.parent) == ["out"]


def with_signal(target: Path, number: int) -> None:
    """Write, and get a signal when the text has been written and is being brought to the disk."""

    def fsync(_: int) -> None:
        signal.raise_signal(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        write_text_atomically(target, NEW)


def test_other_threads_write_too(target: Path) -> None:
    """Signal handlers can be set in the main thread alone."""
    thread = threading.Thread(target=write_text_atomically, args=(target, NEW))
    thread.start()
    thread.join()
    assert target.read_text() == NEW


@pytest.mark.parametrize("step", ["write", "flush"])
def test_a_full_disk_is_an_error_and_leaves_the_old_file(
    step: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file is /dev/full: what is written there fails as on a full disk."""
    text = NEW if step == "write" else "a few bytes, which stay in the buffer"
    left = target.parent / "temporary"

    def mkstemp(**_: object) -> tuple[int, str]:
        left.touch()
        return os.open("/dev/full", os.O_WRONLY), str(left)

    monkeypatch.setattr(files.tempfile, "mkstemp", mkstemp)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_text_atomically(target, text)
    assert target.read_text() == OLD
    assert os.listdir(target.parent) == ["out"]


def test_a_limit_on_file_sizes_is_one_line_and_leaves_the_old_file(target: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    script = "from commplan.planner.cli import main; main()"
    command = [sys.executable, "-B", "-c", script, "plan", "qwen3-0.6b-cpu-tp2", "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {target}: cannot be written: File too large\n"
    assert target.read_text() == OLD
    assert os.listdir(target.parent) == ["out"]


@pytest.mark.parametrize("arguments", [["plan", "qwen3-0.6b-cpu-tp2"], ["presets"], ["presets", "--json"]])
def test_a_full_disk_behind_standard_output_is_one_line(arguments: list[str]) -> None:
    script = "from commplan.planner.cli import main; main()"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: standard output: cannot be written: No space left on device\n"


def test_what_is_read_while_a_command_runs_is_not_written(target: Path) -> None:
    with one_command():
        read_text(target)
        with pytest.raises(OverwriteError):
            write_text_atomically(target, NEW)
        with pytest.raises(OverwriteError):
            name_target(target, "--output")
    assert target.read_text() == OLD


def test_a_python_caller_may_write_what_it_has_read(target: Path) -> None:
    assert read_text(target) == OLD
    write_text_atomically(target, NEW)
    assert target.read_text() == NEW


def test_no_output_is_written_where_another_one_would_replace_what_was_read(target: Path) -> None:
    """A sweep reads files late, and shows what goes wrong with one as a point that cannot be."""
    first = target.parent / "first"
    with one_command():
        name_target(first, "--html")
        name_target(target, "--csv")
        with contextlib.suppress(OverwriteError):
            read_text(target)
        with pytest.raises(OverwriteError):
            write_text_atomically(first, NEW)
    assert not first.exists()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/2", "printed", "linked"])
def test_what_a_command_prints_to_is_not_replaced(name: str, tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    printed.write_text("of before\n")
    (tmp_path / "linked").symlink_to(printed)
    script = f"from commplan.planner.strategy.files import *\nwrite_text_atomically({name!r}, 'text')"
    with printed.open("a") as stream:
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, stdout=stream, stderr=stream, check=False)
    assert done.returncode != 0
    assert printed.read_text().startswith("of before\n")
    assert "is where this command prints" in printed.read_text()


def test_a_folder_that_is_not_there_and_a_link_to_itself_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in ((f"{tmp_path}/new.yaml/", "names one"), (f"{tmp_path}/loop", "link to itself")):
        with pytest.raises(InputError, match=reason):
            write_text_atomically(name, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]
