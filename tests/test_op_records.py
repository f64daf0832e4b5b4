"""What an op is stands in its record alone: nobody else asks an op for its name, and no record says too little."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from commplan.planner.descriptions.calibration import Collective
from commplan.planner.strategies import strategies
from commplan.planner.strategy.executor_file import capabilities
from commplan.planner.strategy.op_kinds import COLLECTIVES, INT8_ALL_REDUCE, KINDS, quantized_all_reduce
from commplan.planner.strategy.op_record import OpKind, Rows, Way
from commplan.planner.strategy.wire import Error
from commplan.planner.strategy.wire_formats import INT8

from .planner.search.brute_force import LAYER
from .planner.search.brute_force import World as SearchWorld
from .quantised_ops import NAMES_FORMAT
from .runtime.legal_plans import World as PlanWorld
from .runtime.legal_plans import all_edges

ROOT = Path(__file__).parents[1]
RECORDS = "planner/strategy/op_kinds.py"
SOURCES = sorted(
    path for folder in ("planner", "runtime") for path in (ROOT / folder).rglob("*.py") if RECORDS not in str(path)
)
NAMES = frozenset(KINDS)
TRAVEL = frozenset(name for name, kind in KINDS.items() if kind.is_collective)
ALGORITHMS = frozenset(algorithm for kind in KINDS.values() for algorithm in (*kind.algorithms, *kind.own_algorithms))


def branches(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines where something depends on the name of an op or algorithm: comparisons, keys, look-ups, lists of names."""
    types = {id(node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript) and _is_type(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            of_algorithm = any(isinstance(side, ast.Attribute) and side.attr == "algorithm" for side in sides)
            yield from _spelled(sides, NAMES | ALGORITHMS if of_algorithm else NAMES)
            yield from _substrings(node)
        elif isinstance(node, ast.Dict):
            yield from _spelled([key for key in node.keys if key is not None], NAMES)
        elif isinstance(node, ast.MatchValue):
            yield from _spelled([node.value], NAMES)
        elif isinstance(node, ast.Subscript) and not _is_type(node):
            yield from _spelled([node.slice], NAMES)
        elif isinstance(node, ast.Tuple | ast.List | ast.Set) and id(node) not in types:
            yield from _spelled(node.elts, TRAVEL)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "get":
                yield from _spelled(node.args[:1], NAMES)
            if node.func.attr in ("startswith", "endswith") and _names_an_impl(node.func.value):
                yield node.lineno, f".{node.func.attr}"


def _spelled(nodes: list[ast.expr], names: frozenset[str]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Constant) and node.value in names:
            yield node.lineno, str(node.value)
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            yield from _spelled(node.elts, names)


def _substrings(node: ast.Compare) -> Iterator[tuple[int, str]]:
    """`"part" in executor.name`"""
    is_text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
    if is_text and isinstance(node.ops[0], ast.In | ast.NotIn) and _names_an_impl(node.comparators[0]):
        yield node.lineno, "a substring of a name"


def _names_an_impl(node: ast.expr) -> bool:
    """`op.impl`, `x.executor`, `executor.name`, `op.name`"""
    if not isinstance(node, ast.Attribute):
        return False
    return node.attr in ("impl", "executor") or (
        node.attr == "name" and ast.unparse(node.value).endswith(("executor", "op"))
    )


def _is_type(node: ast.Subscript) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "Literal"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nobody_outside_the_records_asks_an_op_for_its_name(path: Path) -> None:
    assert sorted(set(branches(ast.parse(path.read_text())))) == []


@pytest.mark.parametrize(
    "line",
    [
        "op.name == 'all_reduce'",
        "op.name not in ('none', 'fused')",
        "x = {'reduce_scatter': 1}",
        "calls['int8_all_reduce']",
        "SUMS = ('all_reduce', 'int8_all_reduce')",
        "op.algorithm == 'gather'",
        "'transformers' in setup.executor.name",
        "op.impl.startswith('commplan_triton')",
        "match op.name:\n    case 'slice':\n        pass",
        "ops.get('all_gather')",
    ],
)
def test_such_a_line_would_be_found(line: str) -> None:
    assert list(branches(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "Op('all_reduce')",
        "op.residual == 'gather'",
        "x: Literal['all_reduce', 'all_gather']",
        "{'a': 'none'}",
        "op == NONE",
    ],
)
def test_an_ordinary_line_is_not(line: str) -> None:
    assert not list(branches(ast.parse(line)))


# ---- what a record must say ------------------------------------------------------------------------------------------


def test_a_quantised_op_without_an_error_is_no_record() -> None:
    for errors in ({"gather": Error({}, "a file")}, {"gather": Error({2: 0.1}, "")}, {}):
        with pytest.raises(ValueError, match="is quantized, so its record needs an error and its source"):
            quantized_all_reduce("x", INT8, errors, "#000000", "")
    with pytest.raises(ValueError, match="needs an error and its source"):
        OpKind("x", (), Rows.SUMMED, "", "#000000", numerics="quantized", ways={"gather": Way()}, wire=INT8)


def test_a_quantised_op_without_a_wire_format_is_no_record() -> None:
    with pytest.raises(ValueError, match="needs its wire format"):
        OpKind("x", (), Rows.SUMMED, "", "#000000", numerics="quantized")


def test_every_op_has_a_colour_of_its_own() -> None:
    colours = [kind.colour for kind in KINDS.values()]
    assert len(set(colours)) == len(colours)


def test_every_strategy_has_a_colour_of_its_own() -> None:
    colours = [strategy.colour for strategy in strategies().values()]
    assert len(set(colours)) == len(colours)


def test_every_error_says_who_measured_it() -> None:
    for kind in KINDS.values():
        errors = [way.error for way in kind.ways.values()] if not kind.wires else list(kind.errors.values())
        assert all((error is not None) == kind.is_quantized for error in errors)
        for error in errors:
            assert error is None or (ROOT / error.source).is_file(), kind.name


def test_every_op_that_travels_says_how_and_no_other_does() -> None:
    for kind in KINDS.values():
        for way in kind.ways.values():
            assert bool(list(way.sends)) == kind.is_collective, kind.name


def test_the_collectives_that_tables_are_of_are_those_of_the_records() -> None:
    assert set(get_args(Collective)) == set(COLLECTIVES)


@pytest.mark.parametrize(("ranks", "error"), [(1, 0.0), (2, 0.1), (3, 0.2), (4, 0.2), (64, 0.2)])
def test_between_measured_sizes_the_error_of_the_larger_one_stands(ranks: int, error: float) -> None:
    assert Error({4: 0.2, 2: 0.1}, "a test").at(ranks) == error


def test_a_scale_for_a_group_of_columns_travels_as_often_as_the_row_has_groups() -> None:
    grouped = replace(INT8, bits=6, scales=replace(INT8.scales, columns=128, bytes_each=2))
    assert grouped.row_bytes(5120) == 5120 * 6 / 8 + 40 * 2
    assert INT8.row_bytes(5120) == 5120 + 4


@pytest.mark.parametrize(("algorithm", "messages"), [("gather", 7.0), ("two_shot", 2 * 7 / 8)])
def test_what_a_rank_receives_follows_from_the_steps(algorithm: str, messages: float) -> None:
    received = INT8_ALL_REDUCE.received_per_row(algorithm, 8, 8, 5120, 2)
    assert received == messages * (5120 + 4)


@pytest.mark.parametrize(
    ("op", "algorithm", "times"),
    [
        ("all_reduce", None, 2),
        ("all_reduce", "one_shot", 1),
        ("all_reduce", "two_shot", 2),
        ("int8_all_reduce", "gather", 1),
        ("int8_all_reduce", "two_shot", 2),
        ("reduce_scatter", None, 1),
        ("latent_all_gather", None, 1),
    ],
)
def test_how_often_ranks_wait_within_one_kernel_follows_from_the_way(
    op: str, algorithm: str | None, times: int
) -> None:
    assert KINDS[op].way(algorithm).exchanges == times


def known_to_the_search(world: SearchWorld) -> set[str]:
    """Names of all moves that some plan can make."""
    steps = [("embed_out", None), *((b, layer) for layer in range(world.layers) for b in LAYER), ("head_in", None)]
    found, states = set(), {None}
    for boundary, layer in steps:
        moves = {move for before in states for move in world.moves(boundary, layer, before)}
        found |= {move.name for move in moves}
        states = {move.after for move in moves}
    return found


def test_the_oracles_of_the_tests_know_every_op() -> None:
    """A new op is held against nothing until they do."""
    search = [SearchWorld(4, 2, 2), SearchWorld(2, 2, latent=True, shard_layers=frozenset({1}))]
    search.append(SearchWorld(2, 2, executor="plan_only", fp8=True))
    assert set().union(*map(known_to_the_search, search)) == NAMES
    executed = capabilities("transformers")
    runtime = [PlanWorld(4, 2), PlanWorld(2, latent=True, sharded_mlps=frozenset({1}))]
    known = NAMES - set(executed.absent) - NAMES_FORMAT  # those last: tests/runtime/bound/test_composed_plans.py
    assert {edge.op.name for world in runtime for edge in all_edges(world)} == known
