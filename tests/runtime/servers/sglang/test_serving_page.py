"""The server session of docs/serving-sglang.md, typed as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from .server import end, free_port, tail

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
BLOCK = re.compile(r"```console\n(\$ source .venv-sglang.*?)```", re.DOTALL)
MARK = "@@@"
LOG = ROOT / "build/sglang/log"  # where the session sends what its server says
WITHIN_S = 900  # a start alone takes minutes on busy cores


def session() -> list[tuple[str, str]]:
    """Commands, each with what it prints."""
    (block,) = BLOCK.findall((ROOT / "docs/serving-sglang.md").read_text(encoding="utf-8"))
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output.strip("\n")) for command, _, output in (part.partition("\n") for part in parts)]


def typed(commands: list[str], port: str) -> list[str]:
    """What each command prints on standard output, in one shell with job control."""
    script = "".join(f"{command}\necho '{MARK}'\n" for command in commands).replace("30000", port)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    process = subprocess.Popen(
        ["bash", "-m"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=kept,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(script, timeout=WITHIN_S)
    except subprocess.TimeoutExpired as late:
        said = tail(LOG) if LOG.is_file() else "nothing"
        raise AssertionError(f"the session did not end within {WITHIN_S} s; its server says:\n{said}") from late
    finally:
        end(process)
    return [part.strip("\n") for part in output.replace(port, "30000").split(MARK)[:-1]]


@pytest.mark.skipif(not (ROOT / ".venv-sglang").is_dir(), reason="the README's environment: make test-sglang")
def test_the_readme_shows_what_its_commands_print() -> None:
    expected = session()
    assert len(expected) > 5
    printed = typed([command for command, _ in expected], str(free_port()))
    assert [words(output) for output in printed] == [words(output) for _, output in expected]


def words(text: str) -> str:
    """Without figures: times are predictions that follow the tables, and counts depend on who else asked."""
    return re.sub(r"\b[0-9a-f]{16}\b|\d[\d.]*", "#", text)


if (
    __name__ == "__main__"
):  # python -m tests.runtime.servers.sglang.test_serving_page: the block anew, from the commands that stand there
    commands = [command for command, _ in session()]
    for command, output in zip(commands, typed(commands, "30000"), strict=True):
        print(f"$ {command}" + (f"\n{output}" if output else ""))
