"""The cases of `collectives.py`: which stands against which, and what is aimed at, on a pair of GPUs and on more."""

from __future__ import annotations

from typing import NamedTuple

PLAIN, GEMM = "back to back", "after a GEMM"
SETTINGS = (PLAIN, GEMM)
BEST, NCCL = "the best", "NCCL"
HOST_AIM_US, HOST_AIM_NORM_US = 15.0, 18.0
EVERYWHERE = 1 << 30


class Family(NamedTuple):
    """Ours and what they stand against; NCCL's is named, since it is compared with last."""

    name: str
    ours: tuple[str, ...]
    nccl: str
    rivals: tuple[str, ...]
    least: tuple[tuple[int, int, float], ...] = ()
    """(first tokens, last tokens, best rival's time over ours aimed at)."""
    mean: tuple[tuple[int, int, str, float], ...] = ()
    """(first tokens, last tokens, setting, the same in the mean)."""
    four: tuple[tuple[int, int, str, float], ...] = ()
    """On four ranks and more: (first tokens, last tokens, against BEST or NCCL, the same)."""


_OTHERS = ("INT8 g64", "FP8 g64", "INT8 g256", "FP8 g256", "INT6 g64", "INT4s g64", "INT4 g64")
FAMILIES = (
    Family(
        "AR + norm",
        ("ours AR + norm",),
        "NCCL + norm",
        (
            "FlashInfer AR + norm",
            "FlashInfer AR + norm PDL",
            "FlashInfer AR + norm two-shot PDL",
            "vLLM AR + norm",
            "torch two-shot + norm",
        ),
        ((1, 256, 0.97), (512, 512, 1.1), (1024, 2048, 1.25), (4096, EVERYWHERE, 1.4)),
        ((1, 256, PLAIN, 1.05), (1, 256, GEMM, 1.2)),
        (
            (1, EVERYWHERE, BEST, 0.97),
            (1, 16, NCCL, 1.8),
            (32, 32, NCCL, 1.6),
            (64, 64, NCCL, 1.4),
            (4096, EVERYWHERE, NCCL, 1.3),
        ),
    ),
    Family(
        "AR",
        ("ours AR",),
        "NCCL",
        ("FlashInfer AR", "FlashInfer AR PDL", "vLLM AR", "torch one-shot", "torch two-shot"),
        ((1, 511, 0.97), (512, EVERYWHERE, 1.05)),
        (),
        ((1, EVERYWHERE, BEST, 0.97), (1, 16, NCCL, 1.8), (32, 64, NCCL, 1.5), (256, 2048, BEST, 1.0)),
    ),
    Family(
        "8 bits + norm",
        ("ours INT8 gather + norm", "ours INT8 two-shot + norm"),
        "NCCL + norm",
        ("FlashInfer FP8 + norm",),
        ((1, EVERYWHERE, 1.4),),
        ((1, EVERYWHERE, PLAIN, 1.7), (1, EVERYWHERE, GEMM, 1.7)),
        ((4096, EVERYWHERE, NCCL, 2.3),),
    ),
    # Scales of groups: what they cost beside one scale a row, and what is left beside the rival and NCCL.
    *(
        Family(name.format(f"{wire} g128 + norm"), (f"ours {wire} g128 two-shot + norm",), "NCCL + norm", rivals, aims)
        for wire in ("INT8", "FP8")
        for name, rivals, aims in (
            ("8 bits, {} beside INT8 per token", ("ours INT8 two-shot + norm",), ((4096, EVERYWHERE, 0.92),)),
            ("8 bits, {} beside FlashInfer's FP8", ("FlashInfer FP8 + norm",), ((4096, EVERYWHERE, 1.3),)),
            ("{} beside NCCL", (), ((4096, EVERYWHERE, 2.0),)),
        )
    ),
    Family("8 bits, gathered", ("ours INT8 g128 gather + norm", "ours FP8 g128 gather + norm"), "NCCL + norm", ()),
    Family("other formats + norm", tuple(f"ours {wire} two-shot + norm" for wire in _OTHERS), "NCCL + norm", ()),
    Family(
        "8 bits",
        ("ours INT8 gather", "ours INT8 two-shot"),
        "NCCL",
        ("FlashInfer FP8",),
        four=((4096, EVERYWHERE, NCCL, 2.0),),
    ),
    Family(
        "scatter + norm + gather",
        ("ours scatter + norm + gather",),
        "NCCL scatter + norm + gather",
        (),
        ((4096, EVERYWHERE, 1.15),),
        four=((4096, EVERYWHERE, NCCL, 1.25),),
    ),
    # The better of the two algorithms, as a plan has it; on four ranks two DP groups, on eight four as well.
    *(
        Family(
            f"{way} pair, {dp} DP groups",
            (f"ours {way} pair dp{dp} one-shot", f"ours {way} pair dp{dp} two-shot"),
            f"NCCL {way} pair dp{dp}",
            (f"ours {way} pair dp{dp} trivially",),
            four=(
                (1, EVERYWHERE, BEST, 1.0),
                (1, 64, NCCL, 2.0),
                (256, 256, NCCL, 1.6),
                (1024, EVERYWHERE, NCCL, 1.15),
            ),
        )
        for dp in (2, 4)
        for way in ("gather", "scatter")
    ),
)
SPACED = (
    "NCCL",
    "torch one-shot",
    "torch two-shot",
    *(f"NCCL {way} pair dp{dp}" for way in ("gather", "scatter") for dp in (2, 4)),
)
"""Lone calls that slow each other down in a graph of nothing else: timed with a tiny kernel behind each."""


def names() -> list[str]:
    """All cases, each once."""
    found = dict.fromkeys(n for f in FAMILIES for n in (*f.ours, *f.rivals, f.nccl))
    return list(found)


def bound_of(name: str) -> float:
    """The relative error above which a case is wrong."""
    by_format = {"FP8": 0.06, "INT8": 0.03, "INT6": 0.06, "INT4s": 0.18, "INT4": 0.25}
    return next((bound for wire, bound in by_format.items() if wire in name), 0.01)
