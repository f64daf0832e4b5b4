"""The command line is the library's first user: it asks what every program may ask."""

from __future__ import annotations

from pathlib import Path

import pytest

import commplan

from ..cli.commandline import run

COMMANDS = {
    "plan": ("plan", "x"),
    "explain": ("explain", "x"),
    "what_if": ("what-if", "x"),
    "validate": ("validate", "x"),
    "load": ("diff", "x", "x"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_asks_the_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise commplan.InputError("the library was asked")

    monkeypatch.setattr(commplan, name, asked)
    assert run(*COMMANDS[name]).err == "error: the library was asked\n"


def test_a_command_keeps_what_it_read_though_the_library_reads_it(tmp_path: Path) -> None:
    deployment = tmp_path / "mine.yaml"
    source = Path(__file__).parents[3] / "configs" / "deployments" / "qwen3-0.6b-cpu-tp2.yaml"
    deployment.write_text(source.read_text())
    assert run("plan", deployment, "-o", deployment).code == 2
    assert deployment.read_text() == source.read_text()
