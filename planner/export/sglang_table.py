"""The table of SGLang 0.5.23's all-reduce v2, as it ships: which of its algorithms takes a message, up to which size.

`configs/custom_all_reduce_v2.py` of its device communicators; a test reads the one that is installed. Sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

KB, MB = 1 << 10, 1 << 20
CAP = 16 * MB
"""`SGLANG_CUSTOM_ALL_REDUCE_V2_MAX_SIZE_KB` by default: every workspace is cut to it."""


@dataclass(frozen=True)
class Heuristic:
    """Limits in a graph, or in an eager forward; of its algorithms the first whose limit holds takes a message.

    multicast  sizes at which the switch adds, before `two_shot_pull` is asked
    """

    one_shot_push: int
    one_shot_pull: int
    two_shot_pull: int
    multicast: tuple[int, int] | None = None
    two_shot_push: int = 0

    @property
    def most(self) -> int:
        """The largest message that it takes."""
        return max(self.one_shot_pull, self.two_shot_pull, self.multicast[1] if self.multicast else 0)

    def up_to(self, limit: int) -> Heuristic:
        """The same with another end: all that lies beyond is cut to it, and two shots reach it."""
        least, most = self.multicast or (0, 0)
        return replace(
            self,
            one_shot_push=min(self.one_shot_push, limit),
            one_shot_pull=min(self.one_shot_pull, limit),
            two_shot_pull=limit,
            multicast=(least, min(most, limit)) if self.multicast and least < limit else None,
            two_shot_push=min(self.two_shot_push, limit),
        )


@dataclass(frozen=True)
class Row:
    """One group size."""

    graph: Heuristic
    eager: Heuristic


def _row(graph: tuple[float, ...], eager: tuple[float, ...], push: float = 0) -> Row:
    return Row(_heuristic(graph, push), _heuristic(eager, push))


def _heuristic(mb: tuple[float, ...], push: float) -> Heuristic:
    sizes = [int(size * MB) for size in mb]
    multicast = (sizes[3], sizes[4]) if len(sizes) > 3 else None
    return Heuristic(sizes[0], sizes[1], sizes[2], multicast, int(push * MB))


_K = 1 / 1024
SM90 = {
    2: _row((16, 128, 128), (32, 128, 128)),
    3: _row((1.25, 1.25, 128), (3, 3, 16)),
    4: _row((384 * _K, 384 * _K, 128), (896 * _K, 896 * _K, 32, 0, 32)),
    5: _row((192 * _K, 192 * _K, 32), (384 * _K, 384 * _K, 32, 0, 32)),
    6: _row((128 * _K, 128 * _K, 32, 8, 32), (192 * _K, 192 * _K, 32, 0, 32)),
    7: _row((128 * _K, 128 * _K, 32, 1, 32), (128 * _K, 128 * _K, 32, 0, 32)),
    8: _row((128 * _K, 128 * _K, 32, 0.5, 128), (128 * _K, 128 * _K, 128, 0, 128)),
}
SM100 = {
    2: _row((8, 32, 128), (16, 128, 128)),
    3: _row((4, 4, 128), (8, 8, 32)),
    4: _row((0.625, 0.625, 128), (0.625, 0.625, 32), 8),
    5: _row((1.5, 1.5, 128), (2, 2, 32, 0, 32)),
    6: _row((1, 1, 128), (1.25, 1.25, 64, 0, 64)),
    7: _row((0.625, 0.625, 128), (1, 1, 64, 0, 64)),
    8: _row((0.25, 0.25, 128, 8, 128), (0.25, 0.25, 128, 0, 128), 8),
    16: _row((0.25, 0.25, 128, 0.25, 128), (0.25, 0.25, 128, 0.25, 128)),
}
SM107 = {
    2: _row((128, 128, 128), (128, 128, 128)),
    3: _row((19.625, 19.625, 128), (39.188, 39.188, 128)),
    4: _row((6.938, 6.938, 128), (9.812, 9.812, 128, 9.812, 128)),
    5: _row((6.938, 6.938, 128, 6.938, 128), (6.938, 6.938, 128, 6.938, 128)),
    6: _row((4.875, 4.875, 128, 4.875, 128), (4.875, 4.875, 128, 4.875, 128)),
    7: _row((3.438, 3.438, 128, 3.438, 128), (3.438, 3.438, 128, 3.438, 128)),
    8: _row((2.438, 2.438, 128, 2.438, 128), (2.438, 2.438, 128, 2.438, 128)),
    16: _row((0.8125, 0.8125, 128, 0.8125, 128), (0.8125, 0.8125, 128, 0.8125, 128)),
}
_OTHERS = {ranks: _row((1, 1, 16), (1, 1, 16)) for ranks in range(2, 17)}
TABLES = {"_sm90_configs": SM90, "_sm100_configs": SM100, "_sm107_configs": SM107}


def table_for(capability: str) -> tuple[str | None, dict[int, Row]]:
    """The function of SGLang's that holds the rows for a compute capability, and the rows; None: its default."""
    major, minor = map(int, capability.split("."))
    name = {9: "_sm90_configs", 10: "_sm107_configs" if minor >= 7 else "_sm100_configs"}.get(major)
    return (None, _OTHERS) if name is None else (name, TABLES[name])
