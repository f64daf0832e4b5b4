"""A file that is no plain YAML mapping is refused in one line that names it, before anything is made of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .commandline import refused
from .deployments import TEXT

ALIAS_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))

UNREADABLE = {
    "empty": ("", "empty file"),
    "only a comment": ("# nothing here\n", "empty file"),
    "null": ("null\n", "empty file"),
    "a list": ("- a\n- b\n", "list"),
    "a scalar": ("hello\n", "str"),
    "a number": ("3\n", "int"),
    "an alias bomb": (ALIAS_BOMB, "aliases"),
    "an anchor": ("name: &n small\n", "anchors"),
    "an alias without anchor": ("name: *n\n", ""),
    "a tag that runs a command": ('name: !!python/object/apply:os.system ["exit 1"]\n', "tags"),
    "a tag that makes an object": ("name: !!python/object:commplan.planner.strategy.ops.Op {}\n", "tags"),
    "a tag of a known type": ("!!map {name: small}\n", "tags"),
    "a tag on a number": ("parallelism: {tp: !!str 2}\n", "tags"),
    "a tag on a key": ("!!python/name:os.system name: small\n", "keys"),
    "a merge key": ("<<: {name: small}\n", "merge"),
    "a mapping as a key": ("{a: b}: c\n", "keys"),
    "a list as a key": ("? [a]\n: c\n", "keys"),
    "two documents": ("name: small\n---\nname: other\n", "more than one"),
    "a duplicate key": ("name: small\nname: other\n", "duplicate"),
    "a duplicate key further in": ("parallelism: {tp: 2, tp: 4}\n", "duplicate"),
    "a duplicate key, quoted once": ('name: small\n"name": other\n', "duplicate"),
    "a tab as indentation": ("modes:\n\tprefill: 1\n", "line 2"),
    "an open bracket": ("parallelism: {tp: 2\n", "line"),
    "a control character": ('name: "a\x01b"\n', "control characters"),
    "a null byte": ("name: a\x00b\n", "control characters"),
    "deep nesting in flow style": ("a: " + "[" * 5000 + "]" * 5000 + "\n", "nested"),
    "deep nesting of open mappings": ("a: " + "{a: " * 5000, "nested"),
    "deep nesting in block style": ("".join(" " * i + "a:\n" for i in range(300)), "nested"),
}

UNREADABLE_JSON = {
    "empty": ("", "line 1"),
    "null": ("null", "empty file"),
    "a list": ("[]", "list"),
    "a duplicate key": ('{"name": "small", "name": "other"}', "duplicate"),
    "a duplicate key further in": ('{"parallelism": {"tp": 2, "tp": 4}}', "duplicate"),
    "NaN": ('{"parallelism": {"tp": NaN}}', "NaN"),
    "Infinity": ('{"parallelism": {"tp": -Infinity}}', "Infinity"),
    "a comment": ('{"name": "small"} # no', "line 1"),
    "a trailing comma": ('{"name": "small",}', "line 1"),
    "deep nesting that Python's reader takes": ('{"name": ' + "[" * 500 + "]" * 500 + "}", "nested"),
    "deep nesting that Python's reader refuses": ('{"name": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested"),
    "a control character": ('{"name": "a\x01"}', "line 1"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_yaml_that_is_no_plain_mapping_is_refused(case: str, tmp_path: Path) -> None:
    text, why = UNREADABLE[case]
    path = tmp_path / "deployment.yaml"
    path.write_text(text)
    error = refused("plan", path)
    assert error["file"] == str(path)
    assert why in error["message"]


@pytest.mark.parametrize("case", UNREADABLE_JSON)
def test_json_that_is_no_plain_mapping_is_refused(case: str, tmp_path: Path) -> None:
    text, why = UNREADABLE_JSON[case]
    path = tmp_path / "deployment.json"
    path.write_text(text)
    error = refused("plan", path)
    assert error["file"] == str(path)
    assert why in error["message"]


@pytest.mark.parametrize("tag", ["python/object/apply:os.mkdir", "python/object/new:os.mkdir"])
def test_a_tag_runs_nothing(tag: str, tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(f"name: !!{tag} [{tmp_path}/made]\n")
    refused("plan", path)
    assert not (tmp_path / "made").exists()


def test_a_duplicate_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(TEXT.replace("{tp: 2,", "{tp: 2, tp: 4,"))
    error = refused("plan", path)
    assert (error["kind"], error["field"]) == ("duplicate_key", "parallelism.tp")
    assert "line 6" in error["message"]


def test_a_file_of_100_mb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.touch()
    os.truncate(path, 100 * 1024 * 1024)  # sparse: takes no room, and would be read as null bytes
    error = refused("plan", path)
    assert (error["kind"], error["file"]) == ("too_large", str(path))
    assert str(100 * 1024 * 1024) in error["message"]


@pytest.mark.parametrize("content", [b"name: caf\xe9\n", "name: small\n".encode("utf-16"), b"\xff\xfe\x00"])
def test_text_that_is_not_utf8_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_bytes(content)
    error = refused("plan", path)
    assert error["file"] == str(path)
    assert "UTF-8" in error["message"]


@pytest.mark.parametrize("encoded", [b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()])
def test_a_byte_order_mark_and_windows_line_ends_are_read(encoded: bytes, tmp_path: Path) -> None:
    from .commandline import answer

    path = tmp_path / "deployment.yaml"
    path.write_bytes(encoded)
    (tmp_path / "plain.yaml").write_text(TEXT)
    assert answer("plan", path) == answer("plan", tmp_path / "plain.yaml")


def test_what_is_no_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    expected = {
        "folder.yaml": "is a directory",
        "pipe.yaml": "is not a regular file",
        "loop.yaml": "no such file",
        "missing.yaml": "no such file",
        "no/such/folder.yaml": "no such file",
    }
    for name, message in expected.items():
        error = refused("plan", tmp_path / name)
        assert error["value"] == str(tmp_path / name)
        assert error["message"] == message


def test_a_name_too_long_for_any_file_is_refused() -> None:
    error = refused("plan", "x" * 5000)
    assert error["field"] == "deployment"


def test_a_misspelt_preset_is_answered_with_the_nearest_one() -> None:
    error = refused("plan", "deepseek-r1-h20-tp")
    assert error["value"] == "deepseek-r1-h20-tp"
    assert "'deepseek-r1-h20-tp8'" in error["message"]


def test_an_unknown_preset_is_answered_with_those_there_are() -> None:
    message = refused("plan", "zzz")["message"]
    assert "qwen3-0.6b-cpu-tp2" in message
    assert "path of a file" in message
