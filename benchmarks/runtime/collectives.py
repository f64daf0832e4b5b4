"""How fast are the collectives of our own? CUDA graphs, against the best of others in the same processes, on all GPUs.

    python benchmarks/runtime/collectives.py --rows rows.jsonl                # again, until it says that all is there
    python benchmarks/runtime/collectives.py --rows rows.jsonl --hidden 7168 --tokens 1,8,64 --processes 1 --minutes 4
    python benchmarks/runtime/collectives.py --rows rows.jsonl --show         # the tables alone
    python benchmarks/runtime/collectives.py --rows rows.jsonl --ratios       # one table: best rival's time over ours
    python benchmarks/runtime/collectives.py --rows tried.jsonl --cases "ours AR;ours AR @piece=2048,few=1024"

Rivals: FlashInfer's kernels and vLLM's (as FlashInfer ships them) where they are installed, NCCL's and torch's. Rows go
into a file as they are measured, so that runs of some minutes add up; tables are of medians over processes, of the
slower rank. Two settings: back to back, and after a GEMM [tokens, 4096] x [4096, hidden] that writes the call's input.
The GEMM's time, or that of the tiny kernel behind lone calls of NCCL and torch, is measured beside each case and taken
off.
Each case is checked against float32 before it is timed and on what the replayed graph left.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import statistics
import time
from pathlib import Path

from comparison import Rows, show, show_ratios
from families import GEMM, SETTINGS, bound_of, names
from ways import NO_MULTICAST

HIDDEN = (4096, 5120, 7168, 8192)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384)
GEMM_TO, INNER = 1024, 4096
HOST_AT = 16
ROUNDS, SAMPLES = 3, 9


def rank_main(
    rows: str, process: int, hidden: int, tokens: list[int], cases: list[str], imports: list[str], until: float
):
    """Measures token counts until the time is over; rank 0 writes."""
    for name, value in NO_MULTICAST.items():
        os.environ.setdefault(name, value)
    for module in imports:
        importlib.import_module(module)
    import torch
    import torch.distributed as dist
    from graph_times import Timer
    from rivals import Makers

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(rank)
    device = torch.device("cuda", rank)
    dist.init_process_group("nccl", device_id=device)
    torch.set_grad_enabled(False)
    write = Writer(rows if rank == 0 else None, {"process": process, "hidden": hidden})
    machine = f"{world} x {torch.cuda.get_device_name()}, torch {torch.__version__}, NCCL {torch.cuda.nccl.version()}"
    write(what="machine", machine=machine)
    timer, makers = Timer(device), Makers(hidden, max(TOKENS))
    for count in tokens:
        over = torch.tensor(float(time.time() > until), device=device)
        dist.broadcast(over, 0)
        if over.item():
            break
        begin = time.monotonic()
        measure(write, timer, makers, cases, count)
        makers.check()
        write(what="done", tokens=count)
        if rank == 0:
            print(f"process {process}, hidden {hidden}, {count} tokens: {time.monotonic() - begin:.0f} s", flush=True)
    torch.cuda.synchronize()
    dist.barrier()


class Writer:
    """Appends lines to a file, at once; or nowhere."""

    def __init__(self, path: str | None, shared: dict[str, object]) -> None:
        self._path, self._shared = path, shared

    def __call__(self, **line: object) -> None:
        if self._path is not None:
            with open(self._path, "a") as file:
                file.write(json.dumps({**self._shared, **line}) + "\n")


def measure(write, timer, makers, cases: list[str], tokens: int) -> None:
    """All cases at a token count."""
    from graph_times import Timed, differing, error_of, host_us, inputs_of

    inputs = inputs_of(tokens, makers.hidden, INNER, makers.device)
    makers.compile(cases, inputs)
    made, timed = {}, {}
    for name in cases:
        case = makers.make(name, inputs)
        if case is None:
            continue
        wanted = case.wanted or inputs.wanted
        error, after, apart = timer.slower(error_of(case.now(), wanted)), 0.0, None
        if error <= bound_of(name):
            for setting in SETTINGS:
                if setting == GEMM and (tokens > GEMM_TO or case.alone):
                    continue
                one = Timed(timer, name, case, setting, inputs)
                if setting == GEMM or not case.sums_itself:
                    after = max(after, timer.slower(error_of(one.last, wanted)))
                    apart = None if case.alone else differing(one.last)
                timed[name, setting] = one
            made[name] = case
        write(what="error", case=name, tokens=tokens, before=error, after=after, apart=apart)
        if max(error, after) > bound_of(name):
            write(what="wrong", case=name, tokens=tokens)
            timed = {key: one for key, one in timed.items() if key[0] != name}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for turn in range(ROUNDS):
        order = list(timed)
        random.Random(100 * tokens + turn).shuffle(order)
        for key in order:
            found.setdefault(key, []).append(timed[key].us(SAMPLES))
    for (name, setting), rounds in found.items():
        us, off = (statistics.median(values) for values in zip(*rounds, strict=True))
        write(what="us", case=name, setting=setting, tokens=tokens, us=us, off_us=off, rounds=[r[0] for r in rounds])
    if tokens == HOST_AT:
        for name, case in made.items():
            write(what="host", case=name, tokens=tokens, us=timer.slower(host_us(case.now)))


def pieces(options: argparse.Namespace):
    """(process, hidden, token counts) that the file has not."""
    for process in range(1, options.processes + 1):
        for hidden in options.hidden:
            done = Rows.read(options.rows).done(process, hidden)
            missing = [t for t in options.tokens if t not in done]
            if missing:
                yield process, hidden, missing


def gpus() -> int:
    """Of this machine."""
    import torch

    return torch.cuda.device_count()


def run_pieces(options: argparse.Namespace) -> None:
    """As many as the time allows, each in fresh processes."""
    from commplan.runtime.ranks.spawning import run_ranks

    until = time.time() + 60 * options.minutes
    ranks, rows = options.ranks or gpus(), Rows.read(options.rows)
    if rows.lines and rows.ranks() != ranks:
        raise SystemExit(f"{options.rows} has rows of {rows.ranks()} GPUs, and here are {ranks}: name another file")
    for process, hidden, tokens in pieces(options):
        if time.time() > until - 20:
            break
        given = str(options.rows), process, hidden, tokens, options.cases, options.imports, until
        run_ranks(rank_main, ranks, *given, timeout_s=until - time.time() + 60)
        left = Rows.read(options.rows).done(process, hidden)
        if not left & set(tokens):
            raise SystemExit(f"process {process}, hidden {hidden}: nothing was measured")


def main() -> None:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("collectives.jsonl"), help="where rows are kept")
    parser.add_argument("--hidden", type=numbers, default=list(HIDDEN))
    parser.add_argument("--tokens", type=numbers, default=list(TOKENS))
    parser.add_argument("--processes", type=int, default=3, help="how many sets of processes measure each width")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after this time; call again for the rest")
    parser.add_argument("--cases", type=lambda text: text.split(";"), default=names(), help="a;b;c, default: all")
    parser.add_argument(
        "--imports", type=lambda text: text.split(","), default=[], help="modules that ranks import first"
    )
    parser.add_argument("--ranks", type=int, help="how many GPUs (default: all)")
    parser.add_argument("--show", action="store_true", help="print the tables, and measure nothing")
    parser.add_argument("--ratios", action="store_true", help="print the table of ratios, and measure nothing")
    options = parser.parse_args()
    if options.ratios:
        show_ratios(Rows.read(options.rows))
        return
    if not options.show:
        run_pieces(options)
    show(Rows.read(options.rows))
    missing = [f"process {p}, hidden {h}: {t}" for p, h, t in pieces(options)]
    print("\nall is there" if not missing else "\nnot yet there, so call again: " + "; ".join(missing))


if __name__ == "__main__":
    main()
