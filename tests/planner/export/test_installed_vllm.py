"""What executor vllm says of vLLM's limits is what stands in the vLLM that is installed; read without importing it."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.executors import load_executor
from commplan.planner.executors.stock import StockSum
from commplan.planner.export.told import SWITCHES

_FOUND = importlib.util.find_spec("vllm")
pytestmark = pytest.mark.skipif(_FOUND is None, reason="needs vLLM 0.33's source on the path: its wheel, unpacked")

LIMITS = "distributed/device_communicators/all_reduce_utils.py"
FUSION = "compilation/passes/fusion/allreduce_rms_fusion.py"
MIB = 1 << 20
_KNOWN = {"MiB": MIB, "KiB": 1 << 10}


def source(file: str) -> str:
    assert _FOUND is not None and _FOUND.submodule_search_locations
    return (Path(_FOUND.submodule_search_locations[0]) / file).read_text(encoding="utf-8")


def constant(file: str, name: str) -> Any:
    """What a name is set to in a file of vLLM, in a module or a class."""
    for node in ast.walk(ast.parse(source(file))):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            return eval(compile(ast.Expression(node.value), file, "eval"), dict(_KNOWN))
    raise AssertionError(f"{file} of the vLLM that is installed has no {name}")


def dotted(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def test_the_fused_kernel_takes_what_its_table_says_by_default() -> None:
    table = constant(FUSION, "FI_ALLREDUCE_FUSION_MAX_SIZE_MB")
    stock = load_executor("vllm").stock
    assert stock is not None
    assert stock.fusions[0].max_message_bytes_by == {
        dotted(capability): {ranks: int(mb * MIB) for ranks, mb in by.items()} for capability, by in table.items()
    }


def test_flashinfers_own_all_reduce_takes_the_default_of_that_table_or_the_one_of_mnnvl() -> None:
    table = {k: dict(v) for k, v in constant(FUSION, "FI_ALLREDUCE_FUSION_MAX_SIZE_MB").items()}
    for (capability, ranks, nodes), mb in constant(LIMITS, "FI_MNNVL_ALLREDUCE_MAX_SIZE_MB").items():
        if nodes == 1:
            table[capability][ranks] = mb
    one_node = {dotted(c): {n: int(mb * MIB) for n, mb in by.items() if n <= 8} for c, by in table.items()}
    assert load_executor("vllm").impls["flashinfer"].max_message_bytes_by == one_node


def test_its_own_kernel_takes_messages_below_the_smaller_of_its_entry_and_8_mib() -> None:
    most = 8192 * 1024
    assert "max_size=8192 * 1024," in source("distributed/device_communicators/custom_all_reduce.py")
    assert "inp_size < self.max_size" in source("distributed/device_communicators/custom_all_reduce.py")
    assert "max_size=" not in source("distributed/device_communicators/cuda_communicator.py")
    executor = load_executor("vllm")
    assert executor.stock is not None
    rule = next(r for r in executor.stock.sums if r.impl == "vllm_custom" and r.multicast)
    assert isinstance(rule, StockSum)
    assert rule.max_message_bytes_by == {
        capability: {ranks: min(size, most) - 16 for ranks, size in by.items()}
        for capability, by in constant(LIMITS, "CUSTOM_ALL_REDUCE_MAX_SIZES").items()
    }
    assert executor.impls["vllm_custom"].max_message_bytes == most - 16


def test_symmetric_memory_adds_in_the_switch_for_the_ranks_that_it_lists() -> None:
    table = constant(LIMITS, "SYMM_MEM_ALL_REDUCE_MAX_SIZES")
    listed = constant("distributed/device_communicators/symm_mem.py", "_WORLD_SIZES_MULTIMEM")
    impls = load_executor("vllm").impls
    multimem = {c: {n: size for n, size in by.items() if n in listed[c]} for c, by in table.items()}
    assert impls["multimem"].max_message_bytes_by == multimem
    shots = {c: {n: size for n, size in by.items() if n not in listed[c]} for c, by in table.items()}
    del shots["9.0"]  # its only measurements are of a kernel without the copies
    assert impls["torch_two_shot"].max_message_bytes_by == shots


def test_every_setting_is_one_of_vllms() -> None:
    environment, arguments = source("envs.py"), source("engine/arg_utils.py")
    for switch in SWITCHES:
        if switch.environment is not None:
            assert f'"{switch.environment[0]}": lambda' in environment
        if switch.argument is not None:
            assert switch.argument in arguments
    assert {"fuse_allreduce_rms", "fi_allreduce_fusion_max_size_mb"} <= {
        node.target.id
        for node in ast.walk(ast.parse(source("config/compilation.py")))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
