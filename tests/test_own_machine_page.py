"""docs/own-machine.md shows what its commands really print and write.

python -m tests.test_own_machine_page     # fills it in anew
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "own-machine.md"
CONFIG = ROOT / "tests" / "planner" / "descriptions" / "hf_configs" / "qwen3-32b.json"
BLOCK = re.compile(r"```console\n(.*?)```|<!-- file (\S+) -->\n```yaml\n.*?```", re.DOTALL)
SPOILED = """\
schema: commplan/deployment/v1
name: spoiled
model: qwen3-8b
hardware: b9-8.yaml
parallelism: {tp: 4, attndp: 2}
modes:
  prefill: {tokens: [1, 16384]}
  decode: {tokens: [1, 64]}
numerics: {loosest: any}
"""


def prepared(folder: Path) -> Path:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "config.json").write_bytes(CONFIG.read_bytes())
    (folder / "spoiled.yaml").write_text(SPOILED)
    return folder


def filled(text: str) -> str:
    """The page with the output of every command, and with every file as the commands before it left it."""
    with tempfile.TemporaryDirectory() as name:
        folder = prepared(Path(name))

        def fill(match: re.Match[str]) -> str:
            if match[2] is not None:
                return f"<!-- file {match[2]} -->\n```yaml\n{(folder / match[2]).read_text()}```"
            commands = re.findall(r"^\$ (?:.*\\\n)*.*\n", match[1], re.MULTILINE)
            return "```console\n" + "".join(command + printed(command, folder) for command in commands) + "```"

        return BLOCK.sub(fill, text)


def printed(command: str, folder: Path) -> str:
    arguments = shlex.split(command.removeprefix("$ ").replace("\\\n", " "))[1:]
    run = [sys.executable, "-m", "commplan.planner.cli", *arguments]
    done = subprocess.run(run, capture_output=True, text=True, cwd=folder, check=False, timeout=120)
    said = f"{done.stderr}{done.stdout}".strip("\n")
    return f"{said}\n" if said else ""


@pytest.mark.slow
def test_every_session_and_every_file_of_the_page_is_real() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m tests.test_own_machine_page"


def test_the_page_shows_sessions_and_files() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == 6
    assert "error: spoiled.yaml:5: " in text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
