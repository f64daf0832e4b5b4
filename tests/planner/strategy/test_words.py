from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from pathlib import Path

from commplan.planner.strategy import words

ROOT = Path(__file__).parents[3]
HOME = ROOT / "planner/strategy/words.py"
SETS = {name: frozenset(typing.get_args(each)) for name, each in vars(words).items() if typing.get_args(each)}


def literals(path: Path) -> Iterator[tuple[int, frozenset[str]]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            each = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            yield node.lineno, frozenset(e.value for e in each if isinstance(e, ast.Constant))


def test_a_set_of_words_stands_nowhere_but_in_its_home() -> None:
    assert SETS["GroupName"] == {"tp", "attn_tp", "attn_dp"}
    again = [
        f"{path.relative_to(ROOT)}:{line}"
        for room in ("planner", "runtime")
        for path in sorted((ROOT / room).rglob("*.py"))
        if path != HOME
        for line, found in literals(path)
        if found in SETS.values()
    ]
    assert again == []


def test_the_tuples_beside_the_types_hold_all_their_words() -> None:
    tuples = {frozenset(each) for each in vars(words).values() if isinstance(each, tuple)}
    read = (
        "ForwardMode",
        "GroupName",
        "MoeBackend",
        "ModelRole",
        "Numerics",
        "ResidualRule",
        "Category",
        "Provenance",
        "WeightPart",
        "ScaleGroup",
    )
    assert tuples == {SETS[name] for name in (*read, "ImplKind")}


def test_a_text_that_is_no_word_becomes_none() -> None:
    assert words.as_word("fold", words.RESIDUAL_RULES) == "fold"
    assert words.as_word("Fold", words.RESIDUAL_RULES) is None
