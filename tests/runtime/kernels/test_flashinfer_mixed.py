"""What we hand to FlashInfer, by the signatures of flashinfer-python 0.7.2; whether its kernels do it is unverified."""

from __future__ import annotations

import enum
import sys
import types
from typing import Any

import pytest
import torch

from commplan.runtime.errors import RefusedError
from commplan.runtime.kernels.flashinfer_mixed import FlashInferMixed
from commplan.runtime.ranks.groups import Group


class Op(enum.IntEnum):
    ALLREDUCE = 0
    ALLGATHER = enum.auto()
    REDUCESCATTER = enum.auto()
    ALLREDUCE_ALLGATHER = enum.auto()
    REDUCESCATTER_ALLREDUCE = enum.auto()


class Mode(enum.IntEnum):
    FUSED_OPT_WAITS_MC = 0
    FUSED_OPT_WAITS_UC = enum.auto()
    NCCL_ONE = enum.auto()


class Handler:
    """Takes exactly the parameters of the real one."""

    def __init__(
        self,
        world_rank: int,
        world_size: int,
        local_rank: int,
        local_size: int,
        inter_rank: int,
        inter_size: int,
        local_tp_size: int | None,
        local_dp_size: int | None,
        inter_tp_size: int | None,
        inter_dp_size: int | None,
        dtype: torch.dtype,
        device: torch.device,
        grid_size: int | None = None,
        max_block_size: int | None = None,
        min_block_size: int = 256,
        min_num_steps: int = 4,
        ib_enable_ibgda: bool = True,
        should_init_nvshmem: bool = True,
        use_autotune: bool = True,
    ) -> None:
        # As its ParallelInfo asserts.
        assert local_size == local_tp_size * local_dp_size
        assert world_size == local_size * inter_size
        self.place = (local_rank // local_tp_size, local_rank % local_tp_size)
        self.dp_size, self.nvshmem, self.autotune = local_dp_size, should_init_nvshmem, use_autotune


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Op, Mode]]:
    made: list[tuple[Op, Mode]] = []

    def run_mixed_comm(
        op: Op, handler: Handler, x_in: torch.Tensor, x_out: torch.Tensor | None = None, mode: Mode | None = None
    ) -> torch.Tensor:
        made.append((op, mode))
        scatters = op in (Op.REDUCESCATTER, Op.REDUCESCATTER_ALLREDUCE)
        assert not scatters or x_in.shape[0] % handler.dp_size == 0
        rows = x_in.shape[0] // handler.dp_size if scatters else x_in.shape[0] * handler.dp_size
        return x_in.new_empty(rows, x_in.shape[1])

    module: Any = types.ModuleType("flashinfer.comm.mixed_comm")
    module.MixedCommOp, module.MixedCommMode, module.MixedCommHandler = Op, Mode, Handler
    module.run_mixed_comm = run_mixed_comm
    for name in ("flashinfer", "flashinfer.comm"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST"):
        monkeypatch.delenv(name, raising=False)
    return made


def mixed(rank: int, attn_tp: int) -> FlashInferMixed:
    return FlashInferMixed(Group("tp", None, 4, rank), attn_tp, torch.device("cpu"), torch.bfloat16)


def test_pairs_are_its_fused_unicast_kernels_and_give_the_rows_that_ours_give(calls: list[tuple[Op, Mode]]) -> None:
    x = torch.zeros(6, 32)
    peers = mixed(rank=3, attn_tp=2)
    assert peers._handler.place == (1, 1)  # DP group, and rank in it
    assert (peers._handler.nvshmem, peers._handler.autotune) == (False, False)
    assert peers.gather_sum(x).shape == (12, 32)
    assert peers.scatter_sum(x).shape == (3, 32)
    assert calls == [
        (Op.ALLREDUCE_ALLGATHER, Mode.FUSED_OPT_WAITS_UC),
        (Op.REDUCESCATTER_ALLREDUCE, Mode.FUSED_OPT_WAITS_UC),
    ]


def test_with_one_rank_a_group_they_are_a_gather_and_a_scatter(calls: list[tuple[Op, Mode]]) -> None:
    x = torch.zeros(8, 32)
    peers = mixed(rank=2, attn_tp=1)
    assert peers.all_gather(x).shape == (32, 32)
    assert peers.reduce_scatter(x).shape == (2, 32)
    assert [op for op, _ in calls] == [Op.ALLGATHER, Op.REDUCESCATTER]


@pytest.mark.parametrize(("name", "off"), [("NCCL_NVLS_ENABLE", "0"), ("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")])
def test_nothing_is_made_where_multicast_is_switched_off(
    name: str, off: str, calls: list[tuple[Op, Mode]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, off)
    with pytest.raises(RefusedError, match="multicast object"):
        mixed(rank=0, attn_tp=2)


def test_without_flashinfer_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    for name in ("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RefusedError, match="needs flashinfer-python"):
        mixed(rank=0, attn_tp=2)
