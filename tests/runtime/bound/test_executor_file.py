"""What stands in an executor's file is what the runtime does: it reads the same file as the planner, or these tests
tie the two."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from commplan.planner.executors import executor_names, load_executor
from commplan.planner.strategy.file import capabilities
from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.ops import Op
from commplan.planner.strategy.vendors import BACKENDS
from commplan.runtime import backends
from commplan.runtime.backends.gloo import GlooBackend
from commplan.runtime.backends.nccl import NcclBackend
from commplan.runtime.collectives.formats import FORMATS
from commplan.runtime.collectives.steps import _PASSES, format_of
from commplan.runtime.errors import RefusedError
from commplan.runtime.kernels.peer_impls import CAN, KERNEL_LIMITS, PEER_IMPLS, TRITON, TRITON_NORM, limits_of
from commplan.runtime.kernels.peers import Peers
from commplan.runtime.transformers.models import adapters

from ..legal_plans import World
from ..planned_traffic import _of_op

OPS = [Op(name, algorithm=a) for name, kind in KINDS.items() for a in kind.ways if kind.is_collective]


@pytest.mark.parametrize("name", executor_names())
def test_the_light_reader_finds_what_the_full_validation_does(name: str) -> None:
    assert capabilities(name) == load_executor(name).can


def test_every_architecture_of_the_file_has_an_adapter_and_no_other_has() -> None:
    assert CAN.architectures is not None
    assert set(CAN.architectures) == set(adapters())


def test_every_backend_has_a_record_and_a_file_of_its_name() -> None:
    files = {path.stem for path in Path(backends.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert files == set(BACKENDS)
    assert {import_module(f".{name}", backends.__name__).BACKEND.name for name in BACKENDS} == files


def test_a_backend_that_torch_calls_otherwise_joins_ranks_by_torchs_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GlooBackend().torch_name == "gloo"
    monkeypatch.setitem(BACKENDS, "gloo", replace(BACKENDS["gloo"], torch_name="glue"))
    assert GlooBackend().torch_name == "glue"


def test_the_two_impls_of_our_kernels_have_the_limits_of_the_kernels() -> None:
    assert PEER_IMPLS == (TRITON, TRITON_NORM)
    assert {limits_of(CAN.impls[impl]) for impl in PEER_IMPLS} == {KERNEL_LIMITS}
    assert NcclBackend.peer_limits == KERNEL_LIMITS


@pytest.mark.parametrize("impl", PEER_IMPLS)
def test_every_op_by_our_kernels_is_a_method_of_peers(impl: str) -> None:
    for op in CAN.ops_of(impl):
        kernel = KINDS[op].kernel
        assert kernel is not None
        assert kernel.call in Peers.__abstractmethods__
        if impl == TRITON_NORM:
            assert f"{kernel.call}_norm" in Peers.__abstractmethods__


def test_every_method_of_peers_is_some_ops_kernel_and_is_launched() -> None:
    launches = pytest.importorskip("commplan.runtime.kernels.op_launches")
    bare = {method for method in Peers.__abstractmethods__ if not method.endswith("_norm")} - {"check", "close"}
    assert {kind.kernel.call for kind in KINDS.values() if kind.kernel} == bare
    assert set(launches._BY_METHOD) == bare


def test_every_wire_format_that_can_be_planned_can_be_quantised_to() -> None:
    for name in executor_names():
        wires = {kind.wire.name for op in capabilities(name).ops if (kind := KINDS[op]).wire is not None}
        assert wires <= set(FORMATS)
    assert {step.step for kind in KINDS.values() for way in kind.ways.values() for step in way.passes} <= set(_PASSES)


@pytest.mark.parametrize("op", OPS, ids=str)
@pytest.mark.parametrize("world", [World(4, 1), World(4, 2), World(4, 4)], ids=str)
def test_the_steps_of_a_record_are_the_collectives_that_run(op: Op, world: World) -> None:
    """Against the list that spied runs are held against."""
    sizes = {"tp": world.tp, "attn_tp": world.attn_tp, "attn_dp": world.attn_dp, None: world.tp}
    steps = [(send.by.name, sizes[send.over] if send.over else world.tp) for send in op.way.sends]
    assert steps == _of_op(op, sizes, world)


def test_a_wire_format_that_nobody_can_quantise_to_is_refused() -> None:
    with pytest.raises(RefusedError, match=f"this runtime quantises to {', '.join(FORMATS)} only") as caught:
        format_of("int3", GlooBackend())
    assert caught.value.value == "int3"
