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


# ---- one place reads, one writes, one prints -------------------------------------------------------------------------

READS_OR_WRITES = {
    "open", "read_text", "read_bytes", "write_text", "write_bytes", "mkstemp", "NamedTemporaryFile", "TemporaryFile",
    "rename", "replace_file", "copy", "copyfile", "unlink", "safe_load",
}  # fmt: skip
FILES_ELSEWHERE = {
    "planner/strategy/files.py": "the place",
    "planner/report/page.py": "resources of packages, which it notes",
    "planner/cli/calibrate.py": "samples of an interrupted run: its own file, read and written by one command",
    "runtime/calibration/measure.py": "the same, appended to by rank 0",
    "planner/strategy/folders.py": "folders, each as whole as files are",
    "runtime/rotation/checkpoint.py": "weights and what lies beside them, into a folder of folders.py",
    "runtime/rotation/safetensors_files.py": "weights: a command that reads those writes no file",
    "runtime/transformers/weights.py": "samples of weights; a command that reads those writes no file",
    "runtime/servers/sglang/answer.py": "opens a connection",
    "runtime/kernels/staged/memory.py": "memory of other ranks, by its place in /proc",
    "planner/strategy/command_line/terminal.py": "/dev/null, where standard output cannot be written",
    "planner/cli/__init__.py": "the same, where nobody reads it any more",
}
PRINTS = {"echo", "secho", "style", "print", "echo_via_pager"}
PRINTS_ELSEWHERE = {
    "planner/strategy/command_line/terminal.py": "the place",
    "runtime/calibration/measure.py": "the bar of rank 0, made of names of ours; its note is escaped",
    "runtime/servers/stop.py": "an error, which is escaped by its class",
}
PICKLES = {"pickle", "all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list",
           "send_object_list", "recv_object_list"}  # fmt: skip


def calls(path: Path) -> set[tuple[str | None, str]]:
    """What a module calls: (name before the last dot, name)."""
    found: set[tuple[str | None, str]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            found.add((owner.id if isinstance(owner, ast.Name) else "", node.func.attr))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add((None, node.func.id))
    return found


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path) not in FILES_ELSEWHERE], ids=name)
def test_files_are_read_and_written_where_it_is_noted(path: Path) -> None:
    named = {called for owner, called in calls(path) if owner is not None or called == "open"}
    assert not named & READS_OR_WRITES


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path) not in PRINTS_ELSEWHERE], ids=name)
def test_what_is_printed_is_escaped_in_one_place(path: Path) -> None:
    named = {called for owner, called in calls(path) if owner == "click" or (owner, called) == (None, "print")}
    assert not named & PRINTS


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_ranks_exchange_no_pickles(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not names & PICKLES
