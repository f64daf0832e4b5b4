"""A device alone: GEMMs on the roofline, with the arithmetic of a tile at least; kernels by the bytes they move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from commplan.planner.cost.kernels import DeviceCosts
from commplan.planner.descriptions.weight_types import WeightFormat
from commplan.planner.executors import Kernel, Traffic

from ..tiny_setups import Machine, dense_model

BF16 = WeightFormat("bf16", None)

# 100 TFLOP/s at half of it, 1000 GB/s at 0.8 of it: 5e7 operations and 8e5 bytes per us
MACHINE = Machine(bf16_tflops=100, memory_gb_per_s=1000, kernel_us=2, tile_rows=64)


@pytest.fixture
def device(folder) -> DeviceCosts:
    return DeviceCosts(folder.setup(dense_model(), MACHINE).hardware, BF16, "bf16")


def test_a_large_gemm_is_bound_by_arithmetic(device):
    assert device.gemm(8192, 4096, 4096).time_us == pytest.approx(2 * 8192 * 4096 * 4096 / 5e7)


def test_a_gemm_of_few_rows_is_bound_by_its_weights(folder):
    small_tiles = replace(MACHINE, tile_rows=16)
    device = DeviceCosts(folder.setup(dense_model(), small_tiles).hardware, BF16, "bf16")
    moved = 2 * (4096 * 4096 + 1 * (4096 + 4096))
    assert device.gemm(1, 4096, 4096).time_us == pytest.approx(moved / 8e5)


def test_fewer_rows_than_a_tile_cost_the_arithmetic_of_a_tile(folder):
    memory_is_free = replace(MACHINE, memory_gb_per_s=1e9)
    device = DeviceCosts(folder.setup(dense_model(), memory_is_free).hardware, BF16, "bf16")
    times = [device.gemm(rows, 4096, 4096).time_us for rows in (1, 63, 64, 65, 128)]
    assert times[0] == times[1] == times[2] < times[3] < times[4]
    assert times[4] == pytest.approx(2 * times[2])


def test_more_rows_never_take_less_time(device):
    times = [device.gemm(rows, 1024, 3072).total_us for rows in range(1, 2049)]
    assert times == sorted(times)


def test_experts_read_all_their_weights_in_one_launch(device):
    one, eight = device.gemm(4, 1024, 1024), device.gemm(4, 1024, 1024, batch=8)
    assert eight.time_us == pytest.approx(8 * one.time_us)
    assert eight.launch_us == one.launch_us == 2


def test_nothing_costs_nothing(device):
    kernel = (Kernel(name="copy", read=Traffic(message=2), write=Traffic(message=2)),)
    assert device.gemm(0, 10, 10).total_us == 0
    assert device.passes(kernel, 0).total_us == 0
    assert device.passes((), 100).total_us == 0


def test_a_kernel_costs_a_launch_and_the_bytes_it_moves(device):
    copy = Kernel(name="copy", read=Traffic(message=2), write=Traffic(message=2))
    once, twice = device.passes((copy,), 8e5), device.passes((copy, copy), 8e5)
    assert (once.time_us, once.launch_us) == (pytest.approx(4), 2)
    assert (twice.time_us, twice.launch_us) == (pytest.approx(8), 4)


def test_traffic_counts_every_ranks_copy_and_the_nth_part(device):
    kernel = Kernel(name="sum", read=Traffic(gathered=1), write=Traffic(shard=4))
    assert device.passes((kernel,), 8e5, group_size=4).time_us == pytest.approx(4 + 1)


def test_wider_activations_move_more_bytes(folder):
    setup = folder.setup(dense_model(), MACHINE)
    narrow, wide = (DeviceCosts(setup.hardware, BF16, dtype) for dtype in ("bf16", "fp32"))
    copy = (Kernel(name="copy", read=Traffic(message=2), write=Traffic(message=2)),)
    assert wide.passes(copy, 1e6).time_us == pytest.approx(2 * narrow.passes(copy, 1e6).time_us)
