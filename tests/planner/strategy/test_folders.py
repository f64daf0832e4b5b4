"""A folder is written whole or not at all, and replaces nothing that nobody asked to replace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commplan.planner.strategy.errors import CommplanError, InputError, OverwriteError
from commplan.planner.strategy.folders import check_new_folder, new_folder

SLOW = """
import sys, time
from commplan.planner.strategy.folders import new_folder
with new_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print("filling", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def read(tmp_path: Path) -> Path:
    (tmp_path / "read").mkdir()
    return tmp_path / "read"


def test_what_was_filled_has_the_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "1"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("before", [None, "old"])
def test_a_block_that_fails_leaves_what_was_there(before: str | None, tmp_path: Path) -> None:
    if before:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a").write_text(before)

    def fail() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("new")
            raise InputError("no")

    with pytest.raises(InputError):
        fail()
    assert os.listdir(tmp_path) == (["out"] if before else [])
    assert not before or (tmp_path / "out" / "a").read_text() == before


def test_what_has_the_name_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with new_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing_and_ends_the_process(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None and process.stdout.readline() == "filling\n"
    process.send_signal(number)
    assert process.wait(60) == -number
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["read", "read/inside", "."])
def test_a_folder_that_is_read_is_not_written_nor_one_around_or_within_it(
    name: str, read: Path, tmp_path: Path
) -> None:
    with pytest.raises(OverwriteError, match="which this command reads"):
        check_new_folder(tmp_path / name, "--output", apart_from=read, replaces="config.json")


def test_a_link_to_what_is_read_is_what_is_read(read: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(read)
    with pytest.raises(OverwriteError, match="which this command reads"):
        check_new_folder(tmp_path / "link", "--output", apart_from=read)


def test_what_is_there_is_replaced_only_where_that_is_asked_for_and_it_is_of_the_kind(
    read: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    check_new_folder(out, "--output", apart_from=read)  # an empty one
    (out / "photo").write_text("of a cat")
    with pytest.raises(OverwriteError, match="exists already; name another folder, or give --force"):
        check_new_folder(out, "--output", apart_from=read)
    with pytest.raises(OverwriteError, match=r"holds no config\.json, so --force does not replace it"):
        check_new_folder(out, "--output", apart_from=read, replaces="config.json")
    (out / "config.json").write_text("{}")
    check_new_folder(out, "--output", apart_from=read, replaces="config.json")


def test_what_cannot_be_a_folder_is_refused(read: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, reason in (("file", "is no folder"), ("nowhere/out", "its folder does not exist")):
        with pytest.raises(CommplanError, match=reason):
            check_new_folder(tmp_path / name, "--output", apart_from=read, replaces="config.json")
