"""Kernels of composed sums, emulated and compiled: what plain torch makes, to the bit, and they compile for Hopper."""

from __future__ import annotations

import os

import pytest
import torch

from commplan.runtime.kernels.wire.layout import RowLayout
from commplan.runtime.ranks.spawning import run_ranks

from ...wire_cases import FORMATS, wire_of
from . import emulated_wire as emulated

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")

EMULATED = (
    ("int8", "token"),
    ("int8", "32"),
    ("int6", "128"),
    ("int4", "32"),
    ("fp8_e4m3", "128"),
    ("int4_spikes", "64"),
)


@pytest.fixture(scope="module")
def found() -> emulated.Found:
    """What a process with Triton's interpreter found, which starts once for all claims."""
    (both,) = run_ranks(emulated.found, 1, EMULATED, 200, int.from_bytes(os.urandom(2)))
    assert {kind for kind, _ in EMULATED} == {kind for kind, _ in FORMATS}
    assert all(len(by_format) == len(EMULATED) for by_format in both[:2])
    return both  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.xdist_group("wire kernels")  # one worker starts the process
def test_kernels_make_the_bits_of_plain_torch_and_what_float64_allows(found: emulated.Found) -> None:
    for name, (same, excess, norm_error) in found[0].items():
        assert same, name
        assert excess <= 1.0, (name, excess)
        assert norm_error <= 2.0, (name, norm_error)


@pytest.mark.slow
@pytest.mark.xdist_group("wire kernels")
def test_what_is_not_finite_spoils_its_group_and_of_subnormal_values_nothing_is_left(found: emulated.Found) -> None:
    assert found[1] == dict.fromkeys(found[1], (True, True))


@pytest.mark.slow
@pytest.mark.xdist_group("wire kernels")
def test_fp8_is_rounded_as_pytorch_rounds_it_and_is_never_minus_zero(found: emulated.Found) -> None:
    assert found[2] == (True, True, True)


@pytest.mark.slow
@pytest.mark.parametrize(("wire", "group"), [("int8", "token"), ("int6", "128"), ("int4_spikes", "64")])
def test_they_compile_for_a_hopper_gpu(wire: str, group: str) -> None:
    from .compiled_launches import hopper

    with hopper() as launches:
        from commplan.runtime.kernels.wire.launch import WireKernels

        layout = RowLayout.of(wire_of(wire, group), 5120)
        rows, x = WireKernels(layout), torch.zeros(2, 5120, dtype=torch.bfloat16)
        got = torch.zeros(2, 2, layout.row_bytes, dtype=torch.int8)
        rows.quantize(x, got[0])
        rows.reduce(got, got[0])
        rows.sum_norm(got, x, x[0], 1e-6, x, x)
        names = [metadata.name for _, metadata, _ in launches]
    assert names == ["quantize_kernel", "reduce_kernel", "sum_kernel"]


@pytest.mark.parametrize(
    ("wire", "group", "width", "row_bytes"),
    [
        ("int8", "token", 5120, 5120 + 16),
        ("int8", "128", 5120, 5120 + 80),
        ("int6", "64", 7168, 5376 + 224),
        ("int4", "128", 5120, 2560 + 80),
        ("int4_spikes", "64", 5120, 5120 * 5 // 8),
        ("fp8_e4m3", "128", 7168, 7168 + 112),
    ],
)
def test_a_record_is_the_bytes_that_its_format_says(wire: str, group: str, width: int, row_bytes: int) -> None:
    format_ = wire_of(wire, group)
    layout = RowLayout.of(format_, width)
    assert layout.row_bytes == row_bytes == -(-format_.row_bytes(width) // 16) * 16
