"""calibrate and verify see collectives of our own, and their reference does what the contract of Peers says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from commplan.planner.calibration.needed_points import RIVALS as POINTS_OF_RIVALS
from commplan.planner.strategy.file import Op, Parallelism, StrategyFile
from commplan.runtime.calibration.rivals import RIVALS
from commplan.runtime.kernels.peer_impls import TRITON, TRITON_NORM
from commplan.runtime.kernels.rms_norm import rms_norm

from ..strategy_files import ranges_of, strategy_file
from ..world import RankWorld
from .own_measuring import METHODS, Results, measured_boundaries, measured_points, results

Worlds = Callable[[int], RankWorld]
SUMS = ("all_reduce", "int8_all_reduce.gather", "int8_all_reduce.two_shot", "reduce_scatter")
OTHERS = (("all_gather", 0), ("all_reduce_all_gather", 2), ("reduce_scatter_all_reduce", 2))
POINTS: list[list[Any]] = [
    ["collective", "all_reduce", 2, "fp32", 8, 64, 0],
    *([TRITON, name, 2, dtype, rows, 32, 0] for name in SUMS for dtype in ("bf16", "fp32") for rows in (1, 7)),
    *([TRITON_NORM, name, 2, "bf16", rows, 32, 0] for name in SUMS for rows in (1, 7)),
    [TRITON_NORM, "all_reduce.pushed", 2, "bf16", 7, 32, 0],
    *([TRITON, name, 2, "bf16", 8, 48, attn_dp] for name, attn_dp in OTHERS),
]
pytestmark = pytest.mark.slow


def test_every_point_is_measured_by_its_own_call(world: Worlds) -> None:
    for rank, (samples, said, methods) in enumerate(world(2).run(measured_points, POINTS, True)):
        assert list(samples) == [" ".join(map(str, point)) for point in POINTS]
        assert all(len(times) >= 5 and min(times) > 0 for times in samples.values())
        assert methods == set(METHODS)
        assert "left out" not in said
        assert ("round 1 of" in said) == (rank == 0)


def test_points_that_the_backend_has_no_collectives_for_stay_empty_and_one_line_says_so(world: Worlds) -> None:
    for rank, (samples, said, methods) in enumerate(world(2).run(measured_points, POINTS, False)):
        assert [key for key, times in samples.items() if times] == ["collective all_reduce 2 fp32 8 64 0"]
        assert len(samples) == len(POINTS)
        assert methods == set()
        line = f"{len(POINTS) - 1} points of collectives of our own are left out: gloo has none\n"
        assert said.count("left out") == (line in said) == (rank == 0)


def test_kernels_of_other_libraries_are_left_out_where_there_are_no_gpus_for_them(world: Worlds) -> None:
    assert RIVALS == POINTS_OF_RIVALS, "the planner and the runtime name the same"
    points = [POINTS[0], *([impl, "all_reduce", 2, "bf16", 4, 32, 0] for impl in RIVALS)]
    for rank, (samples, said, _) in enumerate(world(2).run(measured_points, points, True)):
        assert [key for key, times in samples.items() if times] == ["collective all_reduce 2 fp32 8 64 0"]
        for owner in ("torch", "flashinfer"):
            line = f"2 points of kernels of other libraries are left out: {owner}'s kernels run on NVIDIA GPUs alone"
            assert (line in said) == (rank == 0)


def test_verify_measures_a_sum_together_with_its_norm_where_one_kernel_does_both(
    checkpoint: Callable[..., Path], world: Worlds
) -> None:
    folder, none = checkpoint("qwen3"), Op("none")

    def plan(embed_out: Op, attn_out: Op, mlp_out: Op) -> StrategyFile:
        ops = ranges_of([embed_out, *([none, attn_out, none, mlp_out] * 2), none], 1, 9)
        return strategy_file(folder, Parallelism(2), {"prefill": [ops]})

    bare, fused = Op("all_reduce", impl=TRITON), Op("all_reduce", impl=TRITON_NORM)
    int8 = Op("int8_all_reduce", algorithm="gather", impl=TRITON_NORM)
    pushed = Op("all_reduce", algorithm="pushed", impl=TRITON_NORM)
    plans = {
        "library": plan(Op("all_reduce"), Op("all_reduce"), Op("all_reduce")),
        "bare": plan(bare, bare, bare),
        "fused": plan(bare, fused, int8),
        "pushed": plan(bare, pushed, pushed),
    }
    for library, alone, together, meanwhile, everything in world(2).run(measured_boundaries, plans, 7):
        assert library.methods == set()
        assert alone.methods == {"all_reduce"}
        assert {"all_reduce_norm", "int8_all_reduce_norm"} <= together.methods
        assert {"push", "all_reduce_norm"} <= meanwhile.methods
        keys = {(key[0], key[1]) for key in together.samples}
        assert keys >= {("attn_out", str(fused)), ("mlp_out", str(int8)), ("embed_out", str(bare))}
        assert set(everything.samples) == {
            *(key for each in (library, alone, together, meanwhile) for key in each.samples)
        }
        assert all(len(times) == 1 and times[0] > 0 for times in everything.samples.values())


# ---- the reference -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_reference_sums_adds_and_norms_step_by_step(ranks: int, dtype: torch.dtype, world: Worlds) -> None:
    rows = [1, 2, 3, 8]
    for of_ranks in zip(*world(ranks).run(results, ranks, rows, dtype), strict=True):
        check_sums(list(of_ranks), dtype)
        check_pairs(list(of_ranks), dtype)
        for first, other in ((of_ranks[0], other) for other in of_ranks[1:]):
            for name in ("all_reduce", "int8 gather", "int8 two_shot"):
                assert torch.equal(first.got[name], other.got[name]), name
        assert all(r.kept for r in of_ranks)


def check_sums(of_ranks: list[Results], dtype: torch.dtype) -> None:
    ranks, rows = len(of_ranks), len(of_ranks[0].x)
    shard = -(-rows // ranks)
    exact = torch.stack([r.x for r in of_ranks]).double().sum(0)
    for rank, r in enumerate(of_ranks):
        summed = r.got["all_reduce"]
        assert torch.allclose(summed.double(), exact, atol=4 * ranks * torch.finfo(dtype).eps)
        assert_normed(r.got["all_reduce_norm"], summed + r.residual, r)
        assert_normed(r.got["all_reduce_norm, folded"], summed, r)
        for algorithm in ("gather", "two_shot"):
            assert_normed(r.got[f"int8 {algorithm} norm"], r.got[f"int8 {algorithm}"] + r.residual, r)
        padded = torch.cat([exact, exact.new_zeros(shard * ranks - rows, 24)])
        part = r.got["reduce_scatter"]
        mine = padded[rank * shard : (rank + 1) * shard]
        assert torch.allclose(part.double(), mine, atol=4 * ranks * torch.finfo(dtype).eps)
        assert (part[max(0, rows - rank * shard) :] == 0).all()
        everyone = r.got["all_gather"]
        assert torch.equal(everyone[:rows], r.residual)
        assert_normed(r.got["reduce_scatter_norm"], part + everyone[rank * shard : (rank + 1) * shard], r)


def assert_normed(got: tuple[torch.Tensor, torch.Tensor], total: torch.Tensor, r: Results) -> None:
    assert torch.equal(got[1], total)
    assert torch.equal(got[0], rms_norm(total, r.weight, 1e-6))


def check_pairs(of_ranks: list[Results], dtype: torch.dtype) -> None:
    """Two DP groups of neighbours."""
    ranks, rows = len(of_ranks), len(of_ranks[0].x)
    attn_tp = ranks // 2
    partials = torch.stack([r.x for r in of_ranks]).double()
    loose = {"atol": 4 * ranks * torch.finfo(dtype).eps}
    for rank, r in enumerate(of_ranks):
        if r.got["gather_sum"] is not None:
            wanted = partials.view(2, attn_tp, rows, 24).sum(1).reshape(2 * rows, 24)
            assert torch.allclose(r.got["gather_sum"].double(), wanted, **loose)
        if r.got["scatter_sum"] is not None:
            first = rank // attn_tp * (rows // 2)
            assert torch.allclose(r.got["scatter_sum"].double(), partials.sum(0)[first : first + rows // 2], **loose)


def test_nothing_is_sent_for_zero_rows(world: Worlds) -> None:
    for (of_rank,) in world(2).run(results, 2, [0], torch.bfloat16):
        assert of_rank.collectives == 0
        for got in of_rank.got.values():
            tensors = got if isinstance(got, tuple) else (got,)
            assert all(t.shape == (0, 24) and t.dtype == torch.bfloat16 for t in tensors)
