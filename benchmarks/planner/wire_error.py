"""Relative RMS error of quantised all-reduces against float64: the errors in planner/strategy/wire_formats.py.

    python benchmarks/planner/wire_error.py [--rows 128] [--seeds 2] [--outlier 300]
    python benchmarks/planner/wire_error.py --law          # how errors grow with outliers: the slopes of that file

As int8_error.py: each of N ranks holds an independent normal partial of the sum, rows of 5120, scales are symmetric,
sums are fp32. A scale is of a row (`token`) or of a group of columns.

    int8, int6, int4  scale = largest / 127, 31, 7; rounded to nearest
    fp8_e4m3          scale = largest / 448; rounded to e4m3
    int4_spikes       the two largest values of each group travel in bf16 beside it, the rest as int4

`--outlier` multiplies one column by a factor and tells the error of all columns outside of that column's own group.

`--law` does so for several factors and fits the law of planner/strategy/wire.py: with u the square of the error of
normal rows plus slope^2 (R^2 - 3.85^2), R the largest value over the RMS of the other columns, an error is
sqrt(u / (1 + u - u of normal rows)): it grows with R, and where everything beside the outlier is lost it is 1.
"""

from __future__ import annotations

import argparse
import statistics

try:
    import torch
except ModuleNotFoundError:
    raise SystemExit(
        "wire_error.py needs torch: `make bench` installs it, or pip install '.[runtime]' in a checkout"
    ) from None

RANKS = (2, 4, 8, 16)
HIDDEN_SIZE = 5120
GROUPS = ("token", "32", "64", "128", "256")
LARGEST = {"int8": 127, "int6": 31, "int4": 7, "int4_spikes": 7, "fp8_e4m3": 448}
SPIKES = 2
FACTORS = (10.0, 30.0, 100.0, 300.0, 1000.0)
NORMAL_RATIO = 3.85  # the largest of 5120 normal values over their RMS
TINY = torch.finfo(torch.float32).tiny


def quantised(x_TH: torch.Tensor, wire: str, group: str) -> torch.Tensor:
    """fp32 values as they are after a trip in a format."""
    x_TGC = x_TH.unflatten(-1, (-1, x_TH.shape[-1] if group == "token" else int(group)))
    spikes_TGC = None
    if wire == "int4_spikes":
        places = x_TGC.abs().topk(SPIKES, dim=-1).indices
        spikes_TGC = torch.zeros_like(x_TGC, dtype=torch.bool).scatter_(-1, places, True)
    rest_TGC = x_TGC if spikes_TGC is None else x_TGC.masked_fill(spikes_TGC, 0.0)
    scale_TG1 = (rest_TGC.abs().amax(dim=-1, keepdim=True) / LARGEST[wire]).clamp_min(TINY)
    scaled = rest_TGC / scale_TG1
    values = scaled.to(torch.float8_e4m3fn).float() if wire == "fp8_e4m3" else scaled.round()
    sent = values * scale_TG1
    if spikes_TGC is not None:
        sent = torch.where(spikes_TGC, x_TGC.bfloat16().float(), sent)
    return sent.flatten(-2)


def errors(wire: str, group: str, rows: int, seed: int, factor: float = 1.0) -> dict[tuple[str, int], float]:
    """||quantised - exact|| / ||exact|| of one draw, by algorithm and number of ranks."""
    generator = torch.Generator().manual_seed(seed)
    gathered_TH, exact_TH = torch.zeros(rows, HIDDEN_SIZE), torch.zeros(rows, HIDDEN_SIZE, dtype=torch.float64)
    beside = 1 if group == "token" else int(group)  # a whole row has one scale: all other columns of it
    counted = slice(0 if factor == 1.0 else beside, None)
    found = {}
    for ranks in range(1, max(RANKS) + 1):
        part_TH = torch.randn(rows, HIDDEN_SIZE, generator=generator)
        part_TH[:, 0] *= factor
        gathered_TH += quantised(part_TH, wire, group)
        exact_TH += part_TH
        if ranks in RANKS:
            for algorithm, sum_TH in (("gather", gathered_TH), ("two_shot", quantised(gathered_TH, wire, group))):
                difference = (sum_TH.double() - exact_TH)[:, counted]
                found[algorithm, ranks] = float(difference.norm() / exact_TH[:, counted].norm())
    return found


def law(rows: int, seed: int) -> None:
    """The slope of every format, and the largest distance of a measured error from its law."""
    print(f"# slopes: gather, two_shot; fitted over {FACTORS}; {rows} rows of {HIDDEN_SIZE}, torch {torch.__version__}")
    for wire in LARGEST:
        for group in GROUPS:
            if wire == "int4_spikes" and group == "token":
                continue
            normal = errors(wire, group, rows, seed)
            found = {factor: errors(wire, group, rows, seed, factor) for factor in FACTORS}
            fitted = []
            for algorithm in ("gather", "two_shot"):
                base = statistics.mean(normal[algorithm, n] for n in RANKS)
                points = [(f, statistics.mean(found[f][algorithm, n] for n in RANKS)) for f in FACTORS]
                tried = [10 ** (-k / 50) for k in range(50, 400)]
                slope = min(tried, key=lambda s, b=base, p=points: sum((_law(b, s, f) / e - 1) ** 2 for f, e in p))
                if max(e for _, e in points) < 1.02 * base:
                    slope = 0.0
                off = max(abs(_law(base, slope, f) / e - 1) for f, e in points)
                fitted.append(f"{slope:.2g} (off by {off:.0%} at most)")
            print(f'    ("{wire}", "{group}"): {fitted[0]}, {fitted[1]}')


def _law(base: float, slope: float, factor: float) -> float:
    """The error beside a column of so many times the RMS of the others."""
    grown = (slope * max(factor, NORMAL_RATIO)) ** 2 - (slope * NORMAL_RATIO) ** 2
    return ((base**2 + grown) / (1 + grown)) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=128, help="rows of each draw (default 128)")
    parser.add_argument("--seeds", type=int, default=2, help="draws (default 2)")
    parser.add_argument("--outlier", type=float, default=1.0, help="factor of one column (default 1: none)")
    parser.add_argument("--law", action="store_true", help="fit how errors grow with the size of an outlier")
    given = parser.parse_args()
    if given.law:
        law(given.rows, 0)
        return
    what = f"{given.seeds} draws of {given.rows} rows of {HIDDEN_SIZE}, torch {torch.__version__}"
    print(f"# the largest mean over {', '.join(map(str, RANKS))} ranks: gather, two_shot; {what}")
    for wire in LARGEST:
        for group in GROUPS:
            if wire == "int4_spikes" and group == "token":
                continue  # two values of a whole row are none
            draws = [errors(wire, group, given.rows, seed, given.outlier) for seed in range(given.seeds)]
            worst = [
                max(statistics.mean(draw[algorithm, n] for draw in draws) for n in RANKS)
                for algorithm in ("gather", "two_shot")
            ]
            print(f'    ("{wire}", "{group}"): ({worst[0]:.4f}, {worst[1]:.4f}),')


if __name__ == "__main__":
    main()
