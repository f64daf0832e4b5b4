"""How much of a sum hides behind the GEMM before it? GEMM, all-reduce, add and norm in CUDA graphs, on two GPUs.

    python benchmarks/runtime/hidden_sums.py --hidden 5120 --inner 4096,12800 --tokens 2048,4096,8192,16384

Ways: NCCL and a norm behind the whole GEMM; one kernel of commplan's behind it, as it is and in INT8; rows pushed by
copy engines while the GEMM goes on in pieces (rows of the last one x the growth of each over the one behind it); and
no sum at all, which no way can be quicker than.
Measured in turn, medians over rounds, of the slower rank; in brackets what is saved of what the sum costs with NCCL.
Each way is checked against float32 before it is timed and on what the replayed graph left.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from families import PLAIN
from ways import EPS, LIBRARY, NOTHING, begin, in_turn, told

ROUNDS, SAMPLES = 3, 5
ERROR = {"INT8": 0.03, NOTHING: float("inf")}
MOST_ERROR = 0.01


def rank_main(hidden: int, inners: list[int], tokens: list[int], pieces: list[int], growths: list[float]) -> None:
    """Measures and, on rank 0, prints."""
    here = begin()
    import torch
    import torch.distributed as dist
    from graph_times import Timer, inputs_of

    from commplan.runtime.kernels.peer_impls import Room
    from commplan.runtime.kernels.peer_kernels import PeerKernels

    most = max(tokens)
    room = Room(rows=most, int8_rows=most, pushed_rows=most)
    peers, timer = PeerKernels.make(here.group, here.device, torch.bfloat16, hidden, room), Timer(here.device)
    if here.rank == 0:
        print(
            f"{here.world} x {torch.cuda.get_device_name()}, torch {torch.__version__}, hidden {hidden}; us", flush=True
        )
    for inner in inners:
        for count in tokens:
            inputs = inputs_of(count, hidden, inner, here.device)
            times, said = measured(timer, inputs, ways_of(peers, inputs, pieces, growths), count)
            peers.check()
            if here.rank == 0:
                print(f"{count} tokens, inner {inner}: {told(times)}", *said, sep="\n    ", flush=True)
    torch.cuda.synchronize()
    dist.barrier()


def measured(
    timer: Any, inputs: Any, ways: dict[str, Callable[[], Any]], seed: int
) -> tuple[dict[str, float], list[str]]:
    """(us by way, what is wrong with those that are not among them)."""
    from graph_times import Timed, error_of
    from rivals import Case

    timed, said = {}, []
    for name, way in ways.items():
        case = Case(way, inputs.x)
        errors = [timer.slower(error_of(way(), inputs.wanted))]
        if errors[0] <= _most_error(name):
            timed[name] = Timed(timer, name, case, PLAIN, inputs)
            errors.append(timer.slower(error_of(timed[name].last, inputs.wanted)))
        if max(errors) > _most_error(name):
            said.append(f"{name}: WRONG, error {max(errors):.3g}")
            timed.pop(name, None)
    return in_turn({name: partial(_us, found) for name, found in timed.items()}, ROUNDS, seed), said


def _us(timed: Any) -> float:
    found: float = timed.us(SAMPLES)[0]
    return found


def _most_error(name: str) -> float:
    return next((error for word, error in ERROR.items() if word in name), MOST_ERROR)


def ways_of(peers: Any, inputs: Any, pieces: list[int], growths: list[float]) -> dict[str, Callable[[], Any]]:
    """(None, normed, total) of the GEMM's rows summed over the ranks, by every way."""
    import torch
    import torch.distributed as dist

    from commplan.runtime.kernels import pushed
    from commplan.runtime.kernels.add_rms_norm import add_rms_norm

    x, residual, weight, left, right = inputs.x, inputs.residual, inputs.weight, inputs.left, inputs.right

    def gemm() -> Any:
        return torch.mm(left, right, out=x)

    def library() -> Any:
        gemm()
        dist.all_reduce(x)
        return None, *add_rms_norm(x, residual, weight, EPS)

    def nothing() -> Any:
        gemm()
        return None, *add_rms_norm(x, residual, weight, EPS)

    def own() -> Any:
        gemm()
        return None, *peers.all_reduce_norm(x, residual, weight, EPS)

    def quantised() -> Any:
        gemm()
        return None, *peers.int8_all_reduce_norm(x, "two_shot", residual, weight, EPS)

    def in_pieces(rows: int, growth: float) -> Callable[[], Any]:
        def run() -> Any:
            pushed.PIECE_ROWS, pushed.GROWTH = rows, growth
            out = torch.empty_like(x)
            peers.push(out, None, lambda first, last: torch.mm(left[first:last], right, out=out[first:last]))
            return None, *peers.all_reduce_norm(out, residual, weight, EPS, "pushed")

        return run

    found = {LIBRARY: library, "own": own, "own INT8": quantised}
    for rows in (each for each in pieces if each < len(x)):
        found |= {f"pushed, {rows} x {growth:g}": in_pieces(rows, growth) for growth in growths}
    return {**found, NOTHING: nothing}


def main() -> None:
    from commplan.runtime.ranks.spawning import run_ranks

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    def factors(text: str) -> list[float]:
        return [float(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=5120)
    parser.add_argument("--inner", type=numbers, default=[4096, 12800])
    parser.add_argument("--tokens", type=numbers, default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--pieces", type=numbers, default=[512, 1024], help="rows of the last piece")
    parser.add_argument("--growths", type=factors, default=[1.0, 1.5, 2.0, 4.0], help="of a piece over the one behind")
    options = parser.parse_args()
    given = options.hidden, options.inner, options.tokens, options.pieces, options.growths
    run_ranks(rank_main, 2, *given, timeout_s=540)


if __name__ == "__main__":
    main()
