"""Rules of the house that no linter knows: sizes, docstrings, and nothing about the machine it was written on."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("planner", "runtime", "configs")
    if (ROOT / folder).is_dir()
    for path in (ROOT / folder).rglob("*.py")
)
MOST_LINES = 420


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("planner/")], ids=name)
def test_a_file_of_the_planner_can_be_held_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{name(path)} has no docstring"


@pytest.mark.parametrize("path", [path for path in SOURCES if not path.stem.startswith("_")], ids=name)
def test_what_a_module_offers_says_what_it_does(path: Path) -> None:
    """Every public function and class, and every public method of a public class."""
    silent = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            inner = node.body if isinstance(node, ast.ClassDef) else []
            methods = [n for n in inner if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
            silent += [n.name for n in (node, *methods) if not ast.get_docstring(n) and not overrides(n)]
    assert silent == []


def overrides(node: ast.AST) -> bool:
    """Methods that click calls, and that it documents."""
    return isinstance(node, ast.FunctionDef) and node.name in ("list_commands", "get_command")


NOT_OURS = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"(work|root|opt/pypi|opt/wheels)\b",  # folders of one machine
            r"\.\./" + "shared",
            r"/home/" + r"\w+",
            "extra-" + r"index-url[= ]\s*\S*(file|http)",  # where one machine gets its packages
            r"https?://"
            + r"(?!127\.0\.0\.1|localhost)"
            + r"(\d+\.\d+\.\d+\.\d+|[\w-]+(:\d+)?(?=[/\"'\s])|[\w.-]+\.(internal|local|corp|lan|svc))",
            r"\b(arti" + "factory|nex" + r"us)\b",
        ]
    )
)
BINARY = (".png", ".jpg", ".gz", ".zip", ".parquet", ".npz")


def tracked() -> list[Path]:
    """Files that belong to the project: known to git or about to be; everything, where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / entry for entry in listed if entry and (ROOT / entry).is_file()]


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        if path.suffix in BINARY:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if (match := NOT_OURS.search(line)) is not None:
                found.append(f"{name(path)}:{number}: {match[0]}")
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "work/main",
        "cat ../" + "shared/x",
        "/home/" + "me/x",
        "http://" + "10.0.0.1/simple",
        "https://pypi." + "internal/",
    ],
)
def test_such_a_line_would_be_found(line: str) -> None:
    assert NOT_OURS.search(line)


@pytest.mark.parametrize(
    "line",
    ["https://github.com/x", "http://www.apache.org/", "http://127.0.0.1:30000/", "a/work/b", "their work"],
)
def test_an_ordinary_line_is_not(line: str) -> None:
    assert not NOT_OURS.search(line)
