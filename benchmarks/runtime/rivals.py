"""The cases of `collectives.py`: our collectives, NCCL's, torch's; FlashInfer's and vLLM's where they are installed.

vLLM's custom all-reduce is taken as FlashInfer ships it. Submodules are imported by name: the imports of their packages
are of no use here. Of FlashInfer the workspace is asked for with its backend `trtllm`, which needs no NVLink multicast.
"""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric_memory
from torch import Tensor

from commplan.runtime.kernels.add_rms_norm import add_rms_norm
from commplan.runtime.kernels.compile_ahead import compiled_ahead
from commplan.runtime.kernels.peer_impls import Room
from commplan.runtime.kernels.peer_kernels import PeerKernels
from commplan.runtime.kernels.row_launch import Tuning
from commplan.runtime.ranks.groups import Group

EPS = 1e-6
Outputs = tuple[Tensor | None, Tensor | None, Tensor | None]
"""(the sum, or the normed rows and the residual)."""


@dataclass
class Case:
    """One call. `given`: what it reads; `eager`: how it is called outside of graphs, where that differs.

    wanted       what must come out, where that is not the sum of all ranks' rows
    alone        it is timed back to back alone, and ranks need not have the same
    sums_itself  it sums over its input, so a replayed graph of nothing else sums sums
    """

    call: Callable[[], Outputs]
    given: Tensor
    eager: Callable[[], Outputs] | None = None
    after_capture: Callable[[], None] | None = None
    wanted: Outputs | None = None
    alone: bool = False
    sums_itself: bool = False

    @property
    def now(self) -> Callable[[], Outputs]:
        """A call outside of graphs."""
        return self.eager or self.call


@dataclass
class Inputs:
    """Rows of one token count with what must come out."""

    x: Tensor
    residual: Tensor
    weight: Tensor
    wanted: tuple[Tensor, Tensor, Tensor]
    """In fp32: the sum, the normed rows, the residual."""
    left: Tensor
    right: Tensor
    """What a GEMM multiplies to write x."""


_FORMAT = re.compile(r"(INT8|FP8|INT6|INT4|INT4s) g(\d+) ")  # g128: a scale for 128 columns; s: with spikes
_WIRES = {"INT8": "int8", "FP8": "fp8_e4m3", "INT6": "int6", "INT4": "int4", "INT4s": "int4_spikes"}


class Makers:
    """Makes cases; what they share is made once, on first use."""

    def __init__(self, hidden: int, most: int) -> None:
        self.hidden, self.most = hidden, most
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._peers: dict[str, PeerKernels] = {}

    def make(self, name: str, inputs: Inputs) -> Case | None:
        """A case, or None where its library is not there or takes no such message."""
        owner, _, rest = name.partition(" ")
        if " pair " in rest:
            from pairs import pair_case

            return pair_case(owner.lower(), rest, self, inputs)
        try:
            made: Case | None = getattr(self, f"_{owner.lower()}")(rest, inputs)
        except ImportError:
            return None
        return made

    # ---- ours -------------------------------------------------------------------------------------------------------

    def compile(self, cases: list[str], inputs: Inputs) -> None:
        """What ours among the cases launch, all at once."""
        ours = [case for name in cases if name.startswith("ours ") and (case := self.make(name, inputs)) is not None]
        with compiled_ahead(self._peers.values(), sharing=self.world):
            for case in ours:
                case.now()
        dist.barrier()  # else one might wait in a call for another that compiles, and give up

    def peers_of(self, tuned: str = "") -> PeerKernels:
        """Ours, tuned as `piece=2048,few=1024` says."""
        if tuned in self._peers:
            return self._peers[tuned]
        # One sum of the rows of all DP groups stands beside a pair.
        rows = max(1, self.world // 2) * self.most
        room = Room(rows=rows, int8_rows=self.most, int8_gather_rows=self.most, pair_rows=self.most)
        group = Group("tp", dist.group.WORLD, self.world, self.rank)
        peers = PeerKernels.make(group, self.device, torch.bfloat16, self.hidden, room)
        given = (word.split("=") for word in tuned.split(",") if word)
        peers.tune(Tuning(**{key: int(value) for key, value in given}))
        self._peers[tuned] = peers
        return peers

    def check(self) -> None:
        """Raises BoundaryError if one of ours has given up."""
        for peers in self._peers.values():
            peers.check()

    def _ours(self, what: str, i: Inputs) -> Case:
        what, _, tuned = what.partition(" @")
        peers, shard = self.peers_of(tuned), self._shard(i.residual)
        if what == "scatter + norm + gather":

            def in_two() -> Outputs:
                return None, peers.all_gather(peers.reduce_scatter_norm(i.x, shard, i.weight, EPS)[0])[: len(i.x)], None

            return Case(in_two, i.x)
        normed = what.endswith(" + norm")
        if (quantised := _FORMAT.match(what)) is not None:
            algorithm = "gather" if "gather" in what else "two_shot"
            wire = algorithm, _WIRES[quantised[1]], quantised[2]
            if normed:
                return Case(
                    lambda: (None, *peers.quantized_all_reduce_norm(i.x, *wire, i.residual, i.weight, EPS)), i.x
                )
            return Case(lambda: (peers.quantized_all_reduce(i.x, *wire), None, None), i.x)
        if what.startswith("INT8"):
            how = "gather" if "gather" in what else "two_shot"
            if normed:
                return Case(lambda: (None, *peers.int8_all_reduce_norm(i.x, how, i.residual, i.weight, EPS)), i.x)
            return Case(lambda: (peers.int8_all_reduce(i.x, how), None, None), i.x)
        if normed:
            return Case(lambda: (None, *peers.all_reduce_norm(i.x, i.residual, i.weight, EPS)), i.x)
        return Case(lambda: (peers.all_reduce(i.x), None, None), i.x)

    # ---- libraries --------------------------------------------------------------------------------------------------

    def _shard(self, rows: Tensor) -> Tensor:
        """This rank's rows of some, with zeros beyond the last."""
        size = -(-len(rows) // self.world)
        mine = rows[self.rank * size : (self.rank + 1) * size]
        return torch.cat([mine, mine.new_zeros(size - len(mine), self.hidden)])

    @staticmethod
    def _finished(total: Tensor, what: str, i: Inputs) -> Outputs:
        if what.endswith("+ norm"):
            return None, *add_rms_norm(total, i.residual, i.weight, EPS)
        return total, None, None

    def _nccl(self, what: str, i: Inputs) -> Case | None:
        work = i.x.clone()
        if what == "scatter + norm + gather":
            if len(i.x) % self.world:
                return None
            residual = self._shard(i.residual)
            shard = torch.empty_like(residual)

            def in_two() -> Outputs:
                dist.reduce_scatter_tensor(shard, i.x)
                normed, _ = add_rms_norm(shard, residual, i.weight, EPS)
                dist.all_gather_into_tensor(work, normed)
                return None, work, None

            return Case(in_two, i.x)

        def call() -> Outputs:
            dist.all_reduce(work)
            return self._finished(work, what, i)

        return Case(call, work, sums_itself=True)

    def _torch(self, what: str, i: Inputs) -> Case:
        shared = symmetric_memory.empty(*i.x.shape, dtype=i.x.dtype, device=self.device)
        symmetric_memory.rendezvous(shared, dist.group.WORLD)
        shared.copy_(i.x)
        torch.cuda.synchronize()
        dist.barrier()
        group, ops = dist.group.WORLD.group_name, torch.ops.symm_mem
        in_place = not what.startswith("one-shot")
        run = ops.two_shot_all_reduce_ if in_place else ops.one_shot_all_reduce
        return Case(lambda: self._finished(run(shared, "sum", group), what, i), shared, sums_itself=in_place)

    # ---- FlashInfer's -----------------------------------------------------------------------------------------------

    @cached_property
    def _fused(self) -> Any:
        module = importlib.import_module("flashinfer.comm.allreduce")
        space = module.create_allreduce_fusion_workspace(
            backend="trtllm",
            world_size=self.world,
            rank=self.rank,
            max_token_num=self.most,
            hidden_dim=self.hidden,
            dtype=torch.bfloat16,
            group=dist.group.WORLD,
        )
        patterns = importlib.import_module("flashinfer.comm.trtllm_ar").AllReduceFusionPattern
        return SimpleNamespace(run=module.allreduce_fusion, space=space, patterns=patterns)

    def _flashinfer(self, what: str, i: Inputs) -> Case | None:
        if what.startswith("FP8"):
            return self._fp8(what, i)
        one_shot = "two-shot" not in what
        if not one_shot and len(i.x) <= self.world:
            return None
        fused = self._fused
        out, kept, total = (torch.empty_like(i.x) for _ in range(3))
        shared = {"workspace": fused.space, "input": i.x, "use_oneshot": one_shot, "launch_with_pdl": "PDL" in what}
        if "norm" not in what:
            shared |= {"pattern": fused.patterns.kAllReduce, "output": out}

            def alone() -> Outputs:
                fused.run(**shared)
                return out, None, None

            return Case(alone, i.x)
        shared |= {
            "pattern": fused.patterns.kARResidualRMSNorm,
            "residual_in": i.residual,
            "residual_out": kept,
            "norm_out": out,
            "rms_gamma": i.weight,
            "rms_eps": EPS,
            "output": total,
        }

        def normed() -> Outputs:
            fused.run(**shared)
            return None, out, kept

        return Case(normed, i.x)

    @cached_property
    def _quantised(self) -> Any:
        run = importlib.import_module("flashinfer.comm.quantized_allreduce").quantized_all_reduce
        largest = torch.zeros(self.most, self.hidden, dtype=torch.bfloat16, device=self.device)
        run(largest, dist.group.WORLD)  # the largest message first, as its documentation asks
        torch.cuda.synchronize()
        return run

    def _fp8(self, what: str, i: Inputs) -> Case:
        run, out = self._quantised, torch.empty_like(i.x)

        def call() -> Outputs:
            run(i.x, dist.group.WORLD, output=out)
            return self._finished(out, what, i)

        return Case(call, i.x)

    # ---- vLLM's -----------------------------------------------------------------------------------------------------

    @cached_property
    def _custom(self) -> Any:
        ar = importlib.import_module("flashinfer.comm.vllm_ar")
        ipc = importlib.import_module("flashinfer.comm.cuda_ipc")
        size = self.most * self.hidden * 2
        signals = ipc.create_shared_buffer(ar.meta_size() + size)
        ipc.cudart.cudaMemset(ctypes.c_void_p(signals[self.rank]), 0, ar.meta_size())  # it is not zeroed by itself
        torch.cuda.synchronize()
        dist.barrier()
        ranks = torch.empty(8 << 20, dtype=torch.uint8, device=self.device)
        handle = ar.init_custom_ar(signals, ranks, self.rank, True)
        staging = ipc.create_shared_buffer(size)
        ar.register_buffer(handle, staging)
        torch.cuda.synchronize()
        dist.barrier()
        lasting = torch.empty(size // 2, dtype=torch.bfloat16, device=self.device)
        return SimpleNamespace(
            ar=ar, handle=handle, staging=staging[self.rank], size=size, lasting=lasting, keeps=(ranks, signals)
        )

    def _vllm(self, what: str, i: Inputs) -> Case:
        custom = self._custom
        given = custom.lasting[: i.x.numel()].view_as(i.x)
        given.copy_(i.x)
        out = torch.empty_like(i.x)

        def call(staging: int = 0, size: int = 0) -> Outputs:
            custom.ar.all_reduce(custom.handle, given, out, staging, size, 36)
            return self._finished(out, what, i)

        def register() -> None:
            """Peers' addresses are written into a captured graph, which must not run before."""
            mine = custom.ar.get_graph_buffer_ipc_meta(custom.handle)
            told: list[Any] = [None] * self.world
            dist.all_gather_object(told, (list(mine[0]), list(mine[1])))
            custom.ar.register_graph_buffers(custom.handle, [m[0] for m in told], [m[1] for m in told])
            torch.cuda.synchronize()
            dist.barrier()

        return Case(call, given, lambda: call(custom.staging, custom.size), register)
