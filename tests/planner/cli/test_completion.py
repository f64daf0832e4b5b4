"""A shell completes commands, options and presets, as docs/editors.md sets it up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs" / "editors.md"


def completed(words: str, shell: str = "bash") -> list[str]:
    """What click offers a shell for a command line whose last word is being typed."""
    environment = {
        **os.environ,
        "_COMMPLAN_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-m", "commplan.planner.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("commplan pl", {"plan"}),
        ("commplan i", {"init", "import-model", "import-table"}),
        ("commplan init ", {"hardware", "deployment"}),
        ("commplan init hardware --mem", {"--memory-gb", "--memory-gb-per-s"}),
        ("commplan init hardware --link ", {"switch", "full_mesh", "pcie", "loopback"}),
        ("commplan schema s", {"strategy", "sensitivity"}),
        ("commplan plan --cross", {"--cross-check"}),
    ],
)
def test_a_word_is_completed(words: str, offered: set[str]) -> None:
    assert set(completed(words)) == offered


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        ("commplan plan deepseek-r1-h20-", "deepseek-r1-h20-tp8"),
        ("commplan explain deepseek-r1-h20-", "deepseek-r1-h20-tp8"),
        ("commplan what-if deepseek-r1-h20-", "deepseek-r1-h20-tp8"),
        ("commplan calibrate deepseek-r1-h20-", "deepseek-r1-h20-tp8"),
        ("commplan report x.yaml --deployment deepseek-r1-h20-", "deepseek-r1-h20-tp8"),
        ("commplan init deployment qwen3-8", "qwen3-8b"),
        ("commplan init deployment x --hardware h20-8", "h20-8"),
        ("commplan init hardware --like b300-", "b300-8"),
    ],
)
def test_presets_are_offered_where_a_preset_may_stand_and_files_too(words: str, preset: str) -> None:
    assert completed(words) == [words.rsplit(maxsplit=1)[-1], preset]


def test_bash_completes_by_the_line_of_the_docs(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    (line,) = re.findall(r"^eval .*bash_source.*$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    script = tmp_path / "commplan"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m commplan.planner.cli "$@"\n')
    script.chmod(0o755)
    typed = f"{line}\nCOMP_WORDS=(commplan plan deepseek-r1-h20-)\nCOMP_CWORD=2\n_commplan_completion commplan\n"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-c", typed + 'echo "${COMPREPLY[@]}"'], env={**os.environ, "PATH": path}, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "deepseek-r1-h20-tp8\n", done


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_of_the_docs_has_its_script(shell: str) -> None:
    assert f"_COMMPLAN_COMPLETE={shell}_source commplan" in DOCS.read_text(encoding="utf-8")
    environment = {**os.environ, "_COMMPLAN_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "commplan.planner.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert "commplan" in done.stdout, done
