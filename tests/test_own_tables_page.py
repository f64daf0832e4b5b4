"""The page on own tables: what it shows of other tools is what they printed, and its plan uses an import."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from .planner.cli.commandline import run

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "own-tables.md"
OUTPUTS = ROOT / "tests" / "planner" / "calibration" / "outputs"


def test_the_page_plans_with_an_import_and_explains_it_by_its_file(tmp_path, monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    shutil.copy(OUTPUTS / "vllm_4_h100.txt", tmp_path)
    monkeypatch.chdir(tmp_path)
    make = page.split("```console\n$ commplan ", 1)[1].split(" -o h100-own.yaml", 1)[0]
    assert run(*shlex.split(make.replace("\\\n", " ")), "-o", "h100-own.yaml").code == 0
    plan, explain = page.split("```sh\ncommplan ", 1)[1].split("```", 1)[0].replace("\\\n", " ").split("\ncommplan ")
    assert run(*shlex.split(plan)).code == 0
    said = page.split("```text\nWire time from", 1)[1].split("\n", 1)[0]
    assert f"Wire time from{said}\n" in run(*shlex.split(explain)).out


def test_excerpts_are_lines_of_the_published_outputs():
    outputs = "".join(path.read_text(encoding="utf-8") for path in OUTPUTS.glob("*.txt"))
    known = {" ".join(line.split()) for line in outputs.splitlines()}
    page = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL):
        if block.startswith(
            ("Wire time from", "{", "[")
        ):  # printed by commplan, or made up by the fields of a JSON file
            continue
        for line in block.splitlines():
            assert " ".join(line.split()) in {*known, "..."}, line
