"""Relative RMS error of an INT8 all-reduce against float64: the errors in planner/strategy/op_kinds.py.

    python benchmarks/planner/int8_error.py [--rows 256] [--seeds 5]

Per-token symmetric INT8: scale = amax / 127 of a row, round to nearest, accumulate in fp32.

    gather    every rank's part is quantised, its own too; each rank dequantises and sums them all
    two_shot  the same, but a rank sums only the rows it owns, quantises the sum once more, and all gather that

Each rank holds an independent normal partial of the sum, as a row-parallel GEMM leaves it. The second table is for
information: a few channels are larger by a factor, as in real activations, and stretch the scale of every row.
Error = ||quantised - exact|| / ||exact|| over all rows; the mean over the seeds is what counts.

Shapes: N ranks, T rows, H hidden.
"""

from __future__ import annotations

import argparse
import statistics

try:
    import torch
except ModuleNotFoundError:
    raise SystemExit(
        "int8_error.py needs torch: `make bench` installs it, or pip install '.[runtime]' in a checkout"
    ) from None

RANKS = (2, 4, 8, 16)
HIDDEN_SIZE = 5120
ALGORITHMS = ("gather", "two_shot")
OUTLIERS = ((8, 10), (8, 30), (8, 100))  # channels, factor


def quantised(x_TH: torch.Tensor) -> torch.Tensor:
    """fp32 values as they are after a trip through per-row symmetric INT8."""
    scale_T1 = (x_TH.abs().amax(dim=-1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return (x_TH / scale_T1).round().clamp(-127, 127) * scale_T1


def errors(rows: int, seed: int, outliers: tuple[int, float] | None = None) -> dict[tuple[str, int], float]:
    """||quantised - exact|| / ||exact|| of one draw, by algorithm and number of ranks."""
    generator = torch.Generator().manual_seed(seed)
    loudness_H = torch.ones(HIDDEN_SIZE)
    if outliers is not None:
        channels, factor = outliers
        loudness_H[torch.randperm(HIDDEN_SIZE, generator=generator)[:channels]] = factor
    gathered_TH, exact_TH = torch.zeros(rows, HIDDEN_SIZE), torch.zeros(rows, HIDDEN_SIZE, dtype=torch.float64)
    found = {}
    for ranks in range(1, max(RANKS) + 1):
        part_TH = torch.randn(rows, HIDDEN_SIZE, generator=generator) * loudness_H
        gathered_TH += quantised(part_TH)
        exact_TH += part_TH
        if ranks in RANKS:
            for algorithm, sum_TH in (("gather", gathered_TH), ("two_shot", quantised(gathered_TH))):
                found[algorithm, ranks] = float((sum_TH.double() - exact_TH).norm() / exact_TH.norm())
    return found


def table(rows: int, seeds: int, outliers: tuple[int, float] | None = None) -> dict[str, list[float]]:
    """By algorithm: the mean error over the seeds for each number of ranks."""
    draws = [errors(rows, seed, outliers) for seed in range(seeds)]
    return {a: [statistics.mean(draw[a, n] for draw in draws) for n in RANKS] for a in ALGORITHMS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1024, help="rows of each draw (default 1024)")
    parser.add_argument("--seeds", type=int, default=10, help="draws of the table (default 10)")
    given = parser.parse_args()

    print(f"# normal rows of {HIDDEN_SIZE}, {given.seeds} draws of {given.rows} rows, torch {torch.__version__}")
    print("_INT8_ERRORS = {")
    for algorithm, means in table(given.rows, given.seeds).items():
        by_ranks = ", ".join(f"{ranks}: {mean:.4f}" for ranks, mean in zip(RANKS, means, strict=True))
        print(f'    "{algorithm}": Error({{{by_ranks}}}, "benchmarks/planner/int8_error.py"),')
    print("}")

    print("\nFor information: rows with outlier channels")
    print(f"  {'channels':>8}  {'factor':>6}  {'algorithm':9}" + "".join(f"  {f'{n} ranks':>8}" for n in RANKS))
    for channels, factor in OUTLIERS:
        for algorithm, means in table(given.rows, 1, (channels, factor)).items():
            print(f"  {channels:8}  {factor:6}  {algorithm:9}" + "".join(f"  {mean:8.4f}" for mean in means))


if __name__ == "__main__":
    main()
