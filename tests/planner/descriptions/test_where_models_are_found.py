"""A model may be named by its folder, or as the Hub calls it where the cache holds it; nothing is fetched."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.descriptions.hub_cache import cache_folder
from commplan.planner.descriptions.loader import load_model
from commplan.planner.strategy.errors import InputError
from tests.planner.cli.commandline import answer, refused

CONFIGS = Path(__file__).parent / "hf_configs"
SMALL = "qwen3-0.6b-cpu-tp2"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, config: str = "qwen3-0.6b", name: str = "models--Qwen--Qwen3-0.6B", revision: str = "abc") -> Path:
    """A config.json as the cache holds it: a link to a blob."""
    blob = cache / name / "blobs" / f"blob-{revision}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes((CONFIGS / f"{config}.json").read_bytes())
    snapshot = cache / name / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(blob)
    return snapshot


def mark(cache: Path, revision: str, name: str = "models--Qwen--Qwen3-0.6B") -> None:
    (cache / name / "refs").mkdir(parents=True, exist_ok=True)
    (cache / name / "refs" / "main").write_text(revision)


def test_a_folder_stands_for_the_config_within(tmp_path: Path) -> None:
    folder = tmp_path / "my-checkpoint"
    folder.mkdir()
    (folder / "config.json").write_bytes((CONFIGS / "qwen3-8b.json").read_bytes())
    assert load_model(str(folder)).name == "my-checkpoint"
    assert answer("plan", SMALL, "--set", f"model={folder}")["modes"]
    assert answer("import-model", folder)["model"]["name"] == "my-checkpoint"


def test_a_config_in_the_folder_where_one_works_is_named_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_bytes((CONFIGS / "qwen3-8b.json").read_bytes())
    assert load_model("config.json").name == tmp_path.name


def test_a_folder_without_a_config_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    error = refused("plan", SMALL, "--set", f"model={tmp_path}")
    assert (error["field"], "a folder without a config.json" in error["message"]) == ("model", True)


def test_a_folder_is_a_model_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((CONFIGS / "qwen3-8b.json").read_bytes())
    assert refused("plan", SMALL, "--set", f"hardware={tmp_path}")["message"] == "is a directory"


def test_a_name_of_the_hub_is_looked_up_in_the_cache(cache: Path) -> None:
    put(cache)
    mark(cache, "abc\n")
    assert load_model("Qwen/Qwen3-0.6B").name == "Qwen3-0.6B"
    assert answer("plan", SMALL, "--set", "model=Qwen/Qwen3-0.6B")["modes"]


def test_of_several_revisions_the_one_that_main_names_is_taken(cache: Path) -> None:
    put(cache, "qwen3-8b", revision="abc")
    put(cache, "qwen3-0.6b", revision="def")
    mark(cache, "def")
    assert load_model("Qwen/Qwen3-0.6B").hidden_size == 1024
    mark(cache, "abc")
    assert load_model("Qwen/Qwen3-0.6B").hidden_size == 4096


def test_the_only_revision_is_taken_where_none_is_marked(cache: Path) -> None:
    put(cache)
    assert load_model("Qwen/Qwen3-0.6B").hidden_size == 1024


def test_one_of_several_unmarked_revisions_is_not_guessed(cache: Path) -> None:
    put(cache, revision="abc")
    put(cache, revision="def")
    error = refused("plan", SMALL, "--set", "model=Qwen/Qwen3-0.6B")
    assert "several revisions" in error["message"]


@pytest.mark.parametrize("text", ["../../..", "no-such", "", "a/b"])
def test_a_mark_that_names_no_revision_leads_nowhere_else(text: str, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (cache / "models--Qwen--Qwen3-0.6B").mkdir(parents=True)
    mark(cache, text)
    assert "holds no config.json" in refused("plan", SMALL, "--set", "model=Qwen/Qwen3-0.6B")["message"]


def test_a_name_that_the_cache_has_not_is_told_how_to_get_there(cache: Path) -> None:
    put(cache)
    preset = refused("plan", SMALL, "--set", "model=Qwen/Qwen3-8B")["message"]
    assert str(cache) in preset and "take the preset qwen3-8b" in preset and "nothing is fetched" in preset
    other = refused("plan", SMALL, "--set", "model=acme/llm")["message"]
    assert "`hf download acme/llm config.json`" in other and "preset" not in other
    spelt = refused("plan", SMALL, "--set", "model=qwen/qwen3-0.6b-")["message"]
    assert "hf download" in spelt
    (cache / "models--Acme--LLM").mkdir()
    assert "did you mean 'Acme/LLM'" in refused("plan", SMALL, "--set", "model=acme/llm")["message"]


def test_a_folder_of_that_name_goes_before_the_cache(cache: Path, tmp_path: Path, monkeypatch) -> None:
    put(cache)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "Qwen" / "Qwen3-0.6B"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes((CONFIGS / "qwen3-8b.json").read_bytes())
    assert load_model("Qwen/Qwen3-0.6B").hidden_size == 4096


@pytest.mark.parametrize("name", ["../x", "a/b/c", "a/..", "/etc/x", "a/b.json"])
def test_what_is_no_name_of_the_hub_is_no_file_and_nothing_more(name: str, cache: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_model(name)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "/a/hub", "HF_HOME": "/b"}, "/a/hub"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/d"}, "/d/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_variables_of_hugging_face_say(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert cache_folder() == Path(folder)
