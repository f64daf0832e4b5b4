"""How long do kernels of our own take without the link? One GPU: the peer's rows are in place before a kernel starts.

    python benchmarks/runtime/kernels_alone.py            # of this checkout
    PYTHONPATH=... python benchmarks/runtime/kernels_alone.py --hidden 7168
    python benchmarks/runtime/kernels_alone.py --variants # of few rows, cut and started otherwise (`every`: more cuts)

What is left is what a kernel itself costs: its start, loads, additions, norm, stores. A change of a kernel shows here
without a pair of GPUs; what a link makes of it does not. Times are medians of CUDA-graph replays, those of putting the
rows in place taken off.
"""

from __future__ import annotations

import argparse
import os
import statistics

TOKENS = (1, 8, 64, 256, 1024, 4096, 16384)
FEW_TOKENS = (1, 8, 64, 256)
FEW_OPS = ("all_reduce + norm", "int8 gather + norm")
CALLS, SAMPLES = 20, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=5120)
    parser.add_argument(
        "--variants", nargs="?", const="few", choices=("few", "every"), help="few rows cut and started otherwise"
    )
    options = parser.parse_args()
    hidden = options.hidden
    import torch

    torch.cuda.set_device(0)
    if options.variants:
        print_variants(hidden, options.variants == "every")
        return
    alone = Alone(hidden, max(TOKENS))
    found = {tokens: alone.times(tokens) for tokens in TOKENS}
    assert not alone.gave_up(), "a row was not in place"
    names = list(found[1])
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, hidden {hidden}, bf16, us")
    print("| tokens | " + " | ".join(names) + " |\n|---:|" + "---:|" * len(names))
    for tokens, times in found.items():
        print(f"| {tokens} | " + " | ".join(f"{times[name]:.2f}" for name in names) + " |")


def print_variants(hidden: int, every: bool) -> None:
    """Few rows: warps of a program and how a row lies in them, then how a kernel depends on the one before."""
    import torch

    from commplan.runtime.kernels.prepared import DEPENDENCE_VARIABLE

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, hidden {hidden}, bf16, us: tokens {FEW_TOKENS}")
    said = os.environ.get(DEPENDENCE_VARIABLE)
    for name, tuning, dependent in variants(hidden, every):
        os.environ[DEPENDENCE_VARIABLE] = dependent
        alone = Alone(hidden, max(FEW_TOKENS))
        alone.peers.tune(tuning)
        found = [alone.times(tokens, FEW_OPS) for tokens in FEW_TOKENS]
        assert not alone.gave_up(), "a row was not in place"
        cells = "   ".join(f"{op} " + " ".join(f"{times[op]:5.2f}" for times in found) for op in FEW_OPS)
        print(f"{name:28s} {cells}", flush=True)
    os.environ.pop(DEPENDENCE_VARIABLE) if said is None else os.environ.update({DEPENDENCE_VARIABLE: said})


def variants(hidden: int, every: bool):
    """(name, tuning, dependence)."""
    from commplan.runtime.kernels.row_launch import Tuning

    cuts = {"powers of two": False, "equal parts": True}
    for dependent in ("early", "early", "off"):  # twice, since they differ by little more than two runs do
        for name, even in cuts.items():
            yield f"{name}, {dependent}", Tuning(even=even), dependent
    if not every:
        return
    for dependent in ("off", "wait", "early"):
        yield f"as it is, {dependent}", Tuning(), dependent
    yield "as of many, off", Tuning(few=0), "off"
    for warps in (4, 8, 16, 32):
        for each in (2, 4, 8, 16):
            size, most = 32 * warps * each, -(-hidden // (32 * warps))
            if size <= 2 * hidden and most <= 64:
                yield f"{warps} warps, {each} at a time, off", Tuning(warps=warps, part=size), "off"


class Alone:
    """Rank 0 of two, whose peer has always sent."""

    def __init__(self, hidden: int, rows: int) -> None:
        import torch

        from commplan.runtime.kernels.peer_impls import Room
        from commplan.runtime.kernels.peer_kernels import PeerKernels
        from commplan.runtime.kernels.room import half_bytes
        from commplan.runtime.ranks.groups import Group

        self._device = torch.device("cuda", 0)
        plain, small = half_bytes(2, hidden, Room(rows=rows, int8_rows=rows, int8_gather_rows=rows))
        self._error = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
        state = torch.zeros(1, dtype=torch.int64, device=self._device)
        spaces = [self._space(plain, torch.int16), self._space(small, torch.int8)]
        self.peers = PeerKernels(Group("tp", None, 2, 0), *spaces, state, self._error)
        self.peers.looks = 4  # nothing is waited for
        self._hidden, self._halves = hidden, [space.half_bytes for space in spaces]
        self._received = [space.buffer[0] for space in spaces]
        sent = torch.randn(self._received[0].numel(), device=self._device).to(torch.bfloat16).view(torch.int16)
        sent[sent == -32768] = 0
        self._sent = [sent, torch.randint_like(self._received[1], -127, 128)]

    def _space(self, half: int, dtype):
        import torch

        from commplan.runtime.kernels.symmetric import Workspace

        half = -(-half // 16) * 16
        own, other = (torch.empty(2 * half // dtype.itemsize, dtype=dtype, device=self._device) for _ in range(2))
        addresses = torch.tensor([own.data_ptr(), other.data_ptr()], dtype=torch.int64, device=self._device)
        return Workspace(half, addresses, (own, other))

    def gave_up(self) -> bool:
        """Whether a kernel has missed a row."""
        return bool(self._error[0])

    def times(self, tokens: int, of: tuple[str, ...] = ()) -> dict[str, float]:
        """us by op, of some or all."""
        import torch

        x, residual = (torch.randn(tokens, self._hidden, dtype=torch.bfloat16, device=self._device) for _ in range(2))
        weight, peers = torch.ones(self._hidden, dtype=torch.bfloat16, device=self._device), self.peers
        shard = residual[: -(-tokens // 2)].contiguous()
        ops = {
            "all_reduce": (0, lambda: peers.all_reduce(x)),
            "all_reduce + norm": (0, lambda: peers.all_reduce_norm(x, residual, weight, 1e-6)),
            "reduce_scatter + norm": (0, lambda: peers.reduce_scatter_norm(x, shard, weight, 1e-6)),
            "int8 gather + norm": (1, lambda: peers.int8_all_reduce_norm(x, "gather", residual, weight, 1e-6)),
            "int8 two_shot": (1, lambda: peers.int8_all_reduce(x, "two_shot")),
            "int8 two_shot + norm": (1, lambda: peers.int8_all_reduce_norm(x, "two_shot", residual, weight, 1e-6)),
        }
        return {name: self._us(run, space, tokens) for name, (space, run) in ops.items() if not of or name in of}

    def _us(self, run, space: int, tokens: int) -> float:
        size = self._received[space].element_size()
        half, most = self._halves[space] // size, 2 * (tokens + 1) * (self._hidden + 16 // size)
        used = min(half, most)

        def put_in_place():
            for first in (0, half):  # a call uses one half or the other
                self._received[space][first : first + used].copy_(self._sent[space][first : first + used])

        def both():
            put_in_place()
            run()

        return _replayed_us(both) - _replayed_us(put_in_place)


def _replayed_us(run) -> float:
    import torch

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            run()
    times = []
    for _ in range(SAMPLES):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / CALLS)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
