"""How a row lies in a program follows from what the program does with it."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="needs triton (Linux)")

import torch

from commplan.runtime.kernels.row_launch import Parts, Tuning, cut_of, plan_launch
from commplan.runtime.kernels.symmetric import Workspace


def sizes(parts: Parts) -> list[int]:
    return [size for _, size in parts]


@pytest.mark.parametrize("width", [4096, 5120, 7168, 8192])
def test_a_row_of_few_is_cut_evenly_where_it_is_quantised_and_nowhere_else(width: int) -> None:
    few_int8 = cut_of(width, few=True, quantized=True, tuning=Tuning())
    assert len(set(sizes(few_int8.parts))) == 1
    for few, quantized in ((True, False), (False, True), (False, False)):
        found = cut_of(width, few, quantized, Tuning())
        assert sum(sizes(found.parts)) == width, "powers of two waste nothing of these"
        assert sorted(sizes(found.parts), reverse=True) == sizes(found.parts)


@pytest.mark.parametrize("quantized", [False, True])
def test_a_benchmark_may_cut_a_row_of_few_otherwise_and_a_row_of_many_stays_as_it_is(quantized: bool) -> None:
    even, powers = (cut_of(7168, True, quantized, Tuning(even=even)) for even in (True, False))
    assert sizes(even.parts) == [1024] * 7 and sizes(powers.parts) == [4096, 2048, 1024]
    given = cut_of(7168, True, quantized, Tuning(warps=16, part=2048))
    assert (given.warps, sizes(given.parts)) == (16, [2048] * 4)
    assert cut_of(7168, False, quantized, Tuning(warps=32, part=2048)) == cut_of(7168, False, quantized, Tuning())


@pytest.mark.parametrize(("registers", "few", "many"), [(None, None, 64), (0, None, None), (96, None, 96)])
def test_a_benchmark_may_bound_the_registers_of_many_rows_otherwise(
    registers: int | None, few: int | None, many: int | None
) -> None:
    space = Workspace(1 << 40, torch.zeros(4, dtype=torch.int64), None)
    for rows, wanted in ((8, few), (1024, many)):
        launch = plan_launch(
            None, space, rows, 6, (), width=5120, looks=1, dependent="off", tuning=Tuning(registers=registers)
        )
        assert launch.options["maxnreg"] == wanted
