"""The README and the pages of docs/ show what the commands really print, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
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


filling = fill_readme()


@pytest.mark.slow
@pytest.mark.parametrize("page", filling.PAGES, ids=lambda page: page.name)
def test_every_session_of_a_page_is_real(page: Path):
    text = page.read_text(encoding="utf-8")
    assert filling.filled_page(text) == text, "run: python docs/fill_readme.py"


@pytest.mark.slow
def test_every_table_of_the_accuracy_page_is_what_its_command_prints():
    text = filling.ACCURACY.read_text(encoding="utf-8")
    assert filling.filled_accuracy(text) == text, "run: python docs/fill_readme.py"


def test_the_strategy_file_that_is_shown_is_the_golden_one():
    golden = (ROOT / "tests" / "golden" / "deepseek-r1-h20-tp8.yaml").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "strategy-file.md").read_text(encoding="utf-8")
    shown = page.split("```yaml\nschema: commplan/strategy/v1\n", 1)[1].split("```", 1)[0]
    for line in shown.splitlines():
        if line.strip() not in ("", "..."):
            assert line in golden.splitlines(), line


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_link_of_a_page_leads_to_a_file(page: Path):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    gone = [link for link in links if link and not (page.parent / link).exists()]
    assert not gone


def test_every_page_is_named_by_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "docs" / "decisions"]
    assert [page.name for page in pages if f"](docs/{page.name}" not in readme] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170
