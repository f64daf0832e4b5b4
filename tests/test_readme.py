"""The README shows what the commands really print."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def fill_readme():
    spec = importlib.util.spec_from_file_location("fill_readme", ROOT / "docs" / "fill_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_session_in_the_readme_is_real():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert fill_readme().filled_readme(text) == text, "run: python docs/fill_readme.py"


@pytest.mark.slow
def test_every_table_of_the_accuracy_page_is_what_its_command_prints():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert fill_readme().filled_accuracy(text) == text, "run: python docs/fill_readme.py"


def test_the_strategy_file_in_the_readme_is_the_golden_one():
    golden = (ROOT / "tests" / "golden" / "deepseek-r1-h20-tp8.yaml").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```yaml\nschema: commplan/strategy/v1\n", 1)[1].split("```", 1)[0]
    for line in shown.splitlines():
        if line.strip() not in ("", "..."):
            assert line in golden.splitlines(), line
