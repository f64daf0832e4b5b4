"""Sums around NCCL, in fewer bits, beside NCCL with its norm, on as many GPUs as there are: right first, then timed.

    python benchmarks/runtime/wire_sums.py [--hidden 5120 7168] [--tokens 1 64 1024 4096 16384] [--pieces 1 2 4]
        [--formats int8/token int4/128] [--ranks 2] [--algorithm gather] [--without-peer-access] [--eager]
        [--parts] [--host-memory] [--staged] [--json FILE]

`--without-peer-access` has NCCL go through host memory (NCCL_P2P_DISABLE=1): a stand-in for machines whose GPUs do not
reach each other's memory. Every sum is first held against float64, and its bits against those of the other ranks. Times
are of one call in a CUDA graph of several, the median of replays, and the slowest rank's; `--eager` times launches from
Python as well, `--parts` what a gather is made of, each by itself. `--host-memory` has the sum in one launch through
pinned host memory beside them, for up to 512 tokens; `--staged` the same sums, gathered, whose messages copy engines
carry through host memory, and that of rows as they are. The aims are those of a link of about 29 GB/s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from commplan.planner.strategy.file import KINDS
from commplan.planner.strategy.wire import Wire
from commplan.runtime.backends import load_backend
from commplan.runtime.collectives.host_one_shot import HostOneShot
from commplan.runtime.collectives.host_staging import HostStaging
from commplan.runtime.collectives.wire_sums import WireSum
from commplan.runtime.kernels.wire.layout import RowLayout
from commplan.runtime.ranks.groups import Group
from commplan.runtime.ranks.spawning import run_ranks

FORMATS = ("int8/token", "int8/64", "int6/64", "int4/128", "int4_spikes/64", "fp8_e4m3/128")
EPS = 1e-6
CALLS = 4  # of a graph
HOST_MEMORY_ROWS = 512
STAGED = "staged"
AS_THEY_ARE = "rows as they are"
ONE_SHOT = "own, host memory"
# (format, ranks) to what is aimed at: times NCCL and norm, at 1024 tokens and from 4096 on.
AIMS = {
    ("int8/token", 2): (1.5, 1.75),
    ("int4/128", 2): (2.3, 3.0),
    ("int4_spikes/64", 2): (2.0, 2.6),
    ("int8/token", 4): (None, 1.55),
    ("int4/128", 4): (None, 2.6),
}


class Timed(NamedTuple):
    """One case: which sum, of how many rows, and how long it took in a graph and from Python, us."""

    hidden: int
    tokens: int
    name: str
    pieces: int
    graph_us: float
    eager_us: float | None


def wire_of(spelled: str) -> Wire | None:
    """A format and the columns of its scale, as in int4/128; None of rows as they are."""
    if spelled == AS_THEY_ARE:
        return None
    name, _, group = spelled.partition("/")
    wire = KINDS["quantized_all_reduce"].format_of(name, group)  # type: ignore[arg-type]
    assert wire is not None
    return wire


def known_format(spelled: str) -> str:
    """A format on the command line: one of which its record knows the error."""
    known = sorted({f"{name}/{group}" for name, group, _ in KINDS["quantized_all_reduce"].errors})
    if spelled not in known:
        raise argparse.ArgumentTypeError(f"{spelled!r} is none of {', '.join(known)}")
    return spelled


def row_bytes(spelled: str, width: int) -> int:
    """Of a row as it travels."""
    wire = wire_of(spelled)
    return 2 * width if wire is None else RowLayout.of(wire, width).row_bytes


def error_of(spelled: str, algorithm: str) -> float:
    """The error that its record expects of a sum of normal rows; of rows as they are there is none but rounding."""
    if spelled == AS_THEY_ARE:
        return 0.0
    name, _, group = spelled.partition("/")
    return KINDS["quantized_all_reduce"].errors[name, group, algorithm].at(2)  # type: ignore[index]


# ---- on a rank -------------------------------------------------------------------------------------------------------


def on_rank(given: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Every case, on one of the ranks, as plain tuples: a spawned rank knows this script by another name."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(rank)
    if given["without_peer_access"]:
        os.environ["NCCL_P2P_DISABLE"] = "1"
    dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
    bench = Bench(Group("tp", dist.group.WORLD, world, rank), given)
    return [tuple(timed) for timed in bench.all()]


class Bench:
    """The cases of one rank."""

    def __init__(self, group: Group, given: dict[str, Any]) -> None:
        self._group, self._given = group, given
        self._backend = load_backend("nccl")
        self._one_shots: dict[int, HostOneShot] = {}
        self._staging: HostStaging | None = None
        self._algorithm = given["algorithm"] or ("gather" if group.size == 2 else "two_shot")

    def all(self) -> Iterator[Timed]:
        """NCCL with its norm, then every format in every number of pieces."""
        for hidden in self._given["hidden"]:
            norm = self._norm(hidden)
            for tokens in self._given["tokens"]:
                x, residual = self._rows(tokens, hidden, self._group.rank), self._rows(tokens, hidden, 99)
                yield self._timed(hidden, tokens, "NCCL + norm", 1, lambda: self._library(x, residual, norm))  # noqa: B023
                if self._given["host_memory"] and tokens <= HOST_MEMORY_ROWS:
                    yield from self._in_host_memory(hidden, tokens, residual, norm)
                for spelled in self._formats():
                    if self._given["parts"] and tokens >= 1024 and spelled != AS_THEY_ARE:
                        yield from self._parts(hidden, tokens, spelled, x, residual, norm)
                    for pieces in self._given["pieces"] if tokens >= 1024 else (1,):
                        for algorithm, carrier in self._carriers(spelled):
                            wire = wire_of(spelled)
                            summing = WireSum(self._backend, self._group, wire, hidden, algorithm, pieces, carrier)
                            self._check(summing, spelled, algorithm, x, residual, norm)

                            def call(summing: WireSum = summing, x: Tensor = x, residual: Tensor = residual) -> Any:
                                return summing.sum_norm(x, residual, norm.weight, EPS)  # noqa: B023

                            name = spelled if carrier is None else f"{spelled} {STAGED}"
                            yield self._timed(hidden, tokens, name, pieces, call)
        if self._staging is not None:
            self._staging.check()

    def _formats(self) -> list[str]:
        """Those asked for, and rows as they are where copy engines carry them: by the library they are its own sum."""
        return [*self._given["formats"], *([AS_THEY_ARE] if self._given["staged"] else [])]

    def _carriers(self, spelled: str) -> Iterator[tuple[str, HostStaging | None]]:
        """(algorithm, what carries its messages): the library, then copy engines, with room for the largest case."""
        if spelled != AS_THEY_ARE:
            yield self._algorithm, None
        if self._given["staged"]:
            if self._staging is None:
                most = max(row_bytes(name, width) for name in self._formats() for width in self._given["hidden"])
                device = torch.device("cuda", torch.cuda.current_device())
                self._staging = HostStaging.make(self._group, device, self._given["most"] * most)
            yield "gather", self._staging

    def _parts(self, hidden: int, tokens: int, spelled: str, x: Tensor, residual: Tensor, norm: Any) -> Iterator[Timed]:
        """The kernel before the library, its all-gather of the message, the kernel behind it."""
        wire = wire_of(spelled)
        assert wire is not None
        layout = RowLayout.of(wire, hidden)
        rows, out, total = self._backend.wire_rows(layout), torch.empty_like(x), torch.empty_like(x)
        got = x.new_empty(self._group.size, tokens, layout.row_bytes, dtype=torch.int8)
        mine = got[self._group.rank]
        for part, call in (
            ("quantise", lambda: rows.quantize(x, mine)),
            ("gather", lambda: self._backend.start_all_gather(got.flatten(0, 1), mine, self._group).wait()),
            ("sum, norm", lambda: rows.sum_norm(got, residual, norm.weight, EPS, out, total)),
        ):
            yield self._timed(hidden, tokens, f"  {part}", 1, call)

    def _in_host_memory(self, hidden: int, tokens: int, residual: Tensor, norm: Any) -> Iterator[Timed]:
        """One kernel, whose rows land in memory that the ranks share."""
        if hidden not in self._one_shots:
            device = torch.device("cuda", torch.cuda.current_device())
            made = HostOneShot.make(self._group, device, torch.bfloat16, hidden, HOST_MEMORY_ROWS)
            self._one_shots[hidden] = made
        summing, parts = self._one_shots[hidden], [self._rows(tokens, hidden, r) for r in range(self._group.size)]
        mine, wanted = parts[self._group.rank], torch.stack([part.double() for part in parts]).sum(0)

        def call() -> Any:
            return summing.sum_norm(mine, residual, norm.weight, EPS)

        error = float((call()[1].double() - wanted - residual.double()).norm() / wanted.norm())
        if not error < 0.02:
            sys.exit(f"{ONE_SHOT}: error {error}")
        yield self._timed(hidden, tokens, ONE_SHOT, 1, call)
        summing.check()

    def _norm(self, hidden: int) -> Any:
        norm: Any = torch.nn.Module()
        norm.weight = torch.nn.Parameter(self._rows(1, hidden, 7)[0], requires_grad=False)
        norm.variance_epsilon = EPS
        return norm

    def _rows(self, rows: int, hidden: int, seed: int) -> Tensor:
        generator = torch.Generator("cuda").manual_seed(seed)
        return torch.randn(rows, hidden, generator=generator, device="cuda").to(torch.bfloat16)

    def _library(self, x: Tensor, residual: Tensor, norm: Any) -> Any:
        return self._backend.add_rms_norm(self._backend.all_reduce(x, self._group), residual, norm)

    def _check(self, summing: WireSum, spelled: str, algorithm: str, x: Tensor, residual: Tensor, norm: Any) -> None:
        """Exits unless a sum is as close to float64 as its record says, and all ranks hold the same."""
        rows = min(x.shape[0], 512)
        x, residual = x[:rows], residual[:rows]
        wanted = torch.zeros(x.shape, dtype=torch.float64, device="cuda")
        for rank in range(self._group.size):
            wanted += self._rows(self._given["most"], x.shape[1], rank)[:rows].double()
        x = self._rows(self._given["most"], x.shape[1], self._group.rank)[:rows]
        found = summing.sum(x)
        error = float((found.double() - wanted).norm() / wanted.norm())
        out, total = summing.sum_norm(x, residual, norm.weight, EPS)
        wide = total.double()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS) * norm.weight.double()
        off = float((out.double() - normed).norm() / normed.norm())
        first = out.clone()
        dist.broadcast(first, 0)
        allowed = 1.2 * error_of(spelled, algorithm) + 0.003
        if not error <= allowed or not off < 0.01 or not torch.equal(first, out):
            same = torch.equal(first, out)
            sys.exit(f"{spelled}: error {error:.4f} of {allowed:.4f}, norm {off:.4f}, same bits: {same}")

    # ---- times ------------------------------------------------------------------------------------------------------

    def _timed(self, hidden: int, tokens: int, name: str, pieces: int, call: Callable[[], Any]) -> Timed:
        call()
        torch.cuda.synchronize()
        replays = 12 if tokens < 4096 else 5
        eager = self._median(call, replays) if self._given["eager"] else None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = [call() for _ in range(CALLS)]
        in_graph = self._median(graph.replay, replays) / CALLS
        del kept
        return Timed(hidden, tokens, name, pieces, in_graph, eager)

    def _median(self, call: Callable[[], Any], times: int) -> float:
        """Of calls that all ranks begin together, after two that are not counted; the slowest rank's, us."""
        for _ in range(2):
            call()
        marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(times)]
        for first, last in marks:
            dist.barrier()
            torch.cuda.synchronize()
            first.record()
            call()
            last.record()
        torch.cuda.synchronize()
        mine = torch.tensor(statistics.median(a.elapsed_time(b) for a, b in marks) * 1000.0, device="cuda")
        dist.all_reduce(mine, dist.ReduceOp.MAX)
        return float(mine)


# ---- the table -------------------------------------------------------------------------------------------------------


def lines(found: list[Timed], ranks: int) -> Iterator[str]:
    """A line for each case, with how many times NCCL and norm it is, and the aim where there is one."""
    base = {(t.hidden, t.tokens): t for t in found if t.name == "NCCL + norm"}
    best: dict[tuple[int, int, str], float] = {}
    yield f"{'hidden':>6} {'tokens':>6} {'sum + norm':<23} {'pieces':>6} {'graph us':>10} {'times':>6} {'eager us':>10}"
    for t in found:
        times = base[t.hidden, t.tokens].graph_us / t.graph_us
        best[t.hidden, t.tokens, t.name] = max(times, best.get((t.hidden, t.tokens, t.name), 0.0))
        eager = "" if t.eager_us is None else f"{t.eager_us:10.1f}"
        yield f"{t.hidden:>6} {t.tokens:>6} {t.name:<23} {t.pieces:>6} {t.graph_us:10.1f} {times:6.2f} {eager:>10}"
    yield ""
    for (hidden, tokens, name), times in best.items():
        at_1024, from_4096 = AIMS.get((name.removesuffix(f" {STAGED}"), ranks), (None, None))
        aim = from_4096 if tokens >= 4096 else at_1024 if tokens == 1024 else None
        if aim is not None:
            verdict = "met" if times >= aim else "missed"
            yield f"{hidden:>6} {tokens:>6} {name:<23} best {times:5.2f} x, aim {aim:.2f} x: {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hidden", type=int, nargs="+", default=[5120, 7168])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 64, 256, 1024, 4096, 16384])
    parser.add_argument("--pieces", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--formats", nargs="+", type=known_format, default=list(FORMATS), metavar="FORMAT/COLUMNS")
    parser.add_argument("--ranks", type=int, default=torch.cuda.device_count())
    parser.add_argument("--algorithm", choices=("gather", "two_shot"), help="by default gather at two ranks")
    parser.add_argument("--without-peer-access", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--host-memory", action="store_true")
    parser.add_argument("--staged", action="store_true")
    parser.add_argument("--json", type=Path)
    given = vars(parser.parse_args())
    if given["ranks"] < 2 or torch.cuda.device_count() < given["ranks"]:
        sys.exit(f"needs two GPUs or more; torch sees {torch.cuda.device_count()}")
    given["most"] = max(512, *given["tokens"])
    path = given.pop("json")
    found = [Timed(*each) for each in run_ranks(on_rank, given["ranks"], given, timeout_s=580)[0]]
    through = "through host memory" if given["without_peer_access"] else "as NCCL finds it"
    print(f"{given['ranks']} x {torch.cuda.get_device_name()}, NCCL {through}, torch {torch.__version__}")
    for line in lines(found, given["ranks"]):
        print(line)
    if path is not None:
        path.write_text(json.dumps([t._asdict() for t in found], indent=0))


if __name__ == "__main__":
    main()
