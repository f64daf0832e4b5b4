"""The rules of the stock server are those of the SGLang that is installed: its limits, and the models that it fuses."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.executors import load_executor
from commplan.planner.executors.stock import Stock
from commplan.planner.export.sglang_source import VARIABLE, spelled
from commplan.planner.export.sglang_table import CAP, TABLES

_FOUND = importlib.util.find_spec("sglang")
pytestmark = pytest.mark.skipif(_FOUND is None, reason="needs SGLang, in an environment of its own: make test-sglang")

ALL_REDUCE, ADD_NORM = "srt/distributed/device_communicators", "srt/layers/layer_boundary/residual/add_norm.py"


def constant(file: str, name: str) -> Any:
    """The literal that a name is set to in a file of SGLang, read without importing it; of a call, its argument."""
    assert _FOUND is not None and _FOUND.submodule_search_locations
    tree = ast.parse((Path(_FOUND.submodule_search_locations[0]) / file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return value(node.value)
    raise AssertionError(f"{file} of the SGLang that is installed has no {name}")


def value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return value(node.args[0])
    if isinstance(node, ast.BinOp):
        left, right = value(node.left), value(node.right)
        return left * right if isinstance(node.op, ast.Mult) else left | right
    if isinstance(node, ast.Name):
        return set()  # another list of models, which the planner knows nothing of
    found = ast.literal_eval(node)
    return set(found) if isinstance(found, list | tuple | set) else found


def stock() -> Stock:
    rules = load_executor("sglang").stock
    assert rules is not None
    return rules


def test_its_all_reduce_takes_what_the_environment_allows_it_by_default() -> None:
    assert constant("srt/environ.py", "SGLANG_OPT_USE_CUSTOM_ALL_REDUCE_V2") is True
    limit = constant("srt/environ.py", "SGLANG_CUSTOM_ALL_REDUCE_V2_MAX_SIZE_KB") * 1024
    first, older, on_amd = stock().sums
    assert (first.impl, first.max_message_bytes) == ("custom_one_shot", limit)
    assert older.max_message_bytes == constant(f"{ALL_REDUCE}/custom_all_reduce.py", "_MAX_CAR_SIZE")
    assert first.impl == older.impl
    assert on_amd.max_message_bytes == 2 * older.max_message_bytes  # as the same file has it for ROCm
    for rule in (first, on_amd):
        assert load_executor("sglang").impls[rule.impl].max_message_bytes == rule.max_message_bytes


def test_it_fuses_all_reduce_and_norm_up_to_its_batch_and_in_its_models() -> None:
    (fusion,) = stock().fusions
    assert fusion.max_tokens == constant(ADD_NORM, "FUSE_ALLREDUCE_MAX_BATCH_SIZE")
    models = constant("srt/arg_groups/overrides.py", "_FLASHINFER_ALLREDUCE_FUSION_ARCHS")
    assert set(fusion.architectures or ()) == models


def test_its_sharded_norms_are_for_the_models_that_it_lists() -> None:
    flags = {flag.name: flag for flag in stock().flags}
    models = constant("srt/layers/layernorm_sp.py", "SP_SUPPORTED_ARCHITECTURES")
    assert set(flags["--enable-layernorm-sp"].architectures or ()) == models


def test_with_attention_dp_the_models_that_it_lists_return_by_an_all_reduce() -> None:
    models = constant("srt/arg_groups/boundary_reduction.py", "_AR_ARCHITECTURES")
    listed = [forward.architectures for forward in stock().forwards if forward.architectures]
    assert listed and all(set(architectures) <= models for architectures in listed)
    known = set(load_executor("sglang").architectures or ())
    assert {each for architectures in listed for each in architectures} == known & models


def all_reduce_tables() -> dict[str, Any]:
    """What the file with the tables of the all-reduce defines, without torch: it asks that for the device alone."""
    assert _FOUND is not None and _FOUND.submodule_search_locations
    file = Path(_FOUND.submodule_search_locations[0]) / ALL_REDUCE / "configs" / "custom_all_reduce_v2.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.Import) and node.names[0].name == "torch")]
    defined: dict[str, Any] = {"__name__": "custom_all_reduce_v2"}
    exec(compile(tree, str(file), "exec"), defined)
    return defined


@pytest.mark.parametrize("function", sorted(TABLES))
def test_the_table_of_its_all_reduce_is_the_one_that_exports_start_from(function: str) -> None:
    theirs = all_reduce_tables()[function](132)
    assert set(TABLES[function]) == set(theirs)
    for ranks, row in TABLES[function].items():
        for ours, heuristic in ((row.graph, theirs[ranks].graph), (row.eager, theirs[ranks].eager)):
            assert (ours.one_shot_push, ours.one_shot_pull) == heuristic[:2], ranks
            assert ours.two_shot_pull == heuristic.two_shot_pull_threshold
            assert ours.two_shot_push == heuristic.two_shot_push_threshold
            assert (ours.multicast or (0, 0)) == tuple(map(int, heuristic.mc))


def test_the_variable_of_its_cap_is_the_one_that_is_exported() -> None:
    assert constant("srt/environ.py", VARIABLE) * 1024 == CAP


def test_a_row_that_is_exported_is_read_as_it_was_meant() -> None:
    """Printed, and taken by SGLang's own types."""
    defined = all_reduce_tables()
    for ranks, row in TABLES["_sm90_configs"].items():
        for limit in (128 * 1024, 4 << 20, row.graph.most):
            ours = row.graph.up_to(limit)
            theirs = defined["_pack_heuristic"](*eval(spelled(ours), defined))
            assert theirs.max_pull_bytes == limit, ranks
            assert theirs == theirs.clip(max_push_bytes=limit, max_pull_bytes=limit, world_size=ranks)
