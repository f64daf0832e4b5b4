"""What goes into a forward: which requests each DP group brings, and how long they are."""

from __future__ import annotations

from typing import NamedTuple

from .prompts import SHAPES


class Share(NamedTuple):
    """The part of one DP group: `batch` requests of the table from `first` on, their first `seq` tokens."""

    first: int
    batch: int
    seq: int


class Case(NamedTuple):
    """A prompt of every DP group; decode steps go on with the same requests."""

    name: str
    shares: tuple[Share, ...]


def split(batch: int, seq: int, attn_dp: int) -> Case:
    """(B, S) over the DP groups: as even as can be, which leaves groups empty where B < attn_dp."""
    sizes = [batch // attn_dp + (group < batch % attn_dp) for group in range(attn_dp)]
    shares = tuple(Share(sum(sizes[:group]), size, seq) for group, size in enumerate(sizes))
    return Case(f"B={batch} S={seq}", shares)


def cases(attn_dp: int) -> list[Case]:
    """The shapes of the issue; with attention DP also groups of unequal lengths, and a first group that is empty."""
    found = [split(batch, seq, attn_dp) for batch, seq in SHAPES]
    if attn_dp > 1:
        found += [
            Case("unequal groups", (Share(0, 2, 1), *(Share(2, 1, 4 + g) for g in range(attn_dp - 1)))),
            Case("first group empty", (Share(0, 0, 1), *(Share(3, 2, 3) for _ in range(attn_dp - 1)))),
        ]
    return found
