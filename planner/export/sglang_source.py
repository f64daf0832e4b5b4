"""Limits of SGLang's own all-reduce, as measured: its environment for one group, entries of its table for all."""

from __future__ import annotations

from dataclasses import dataclass

from ..descriptions.setup import Setup
from ..strategy.errors import InputError
from .sglang_table import CAP, KB, MB, Heuristic, Row, table_for
from .thresholds import Point, Tables, Verdict, compared, size, verdict

FILE = "sglang/srt/distributed/device_communicators/configs/custom_all_reduce_v2.py"
VARIABLE = "SGLANG_CUSTOM_ALL_REDUCE_V2_MAX_SIZE_KB"
KERNEL = "custom_one_shot"


@dataclass(frozen=True)
class Entry:
    """One group size of SGLang's table.

    line     its `graph=` as it should be; None where the environment is enough, or nothing is to be changed
    missing  why there is no verdict
    """

    ranks: int
    verdict: Verdict | None
    points: tuple[Point, ...] = ()
    sources: tuple[str, ...] = ()
    line: str | None = None
    missing: str | None = None
    note: str | None = None

    @property
    def cap_kb(self) -> int | None:
        """What the environment variable has to be; None where its default will do."""
        if self.verdict is None or not self.verdict.changes or self.verdict.limit == 0:
            return None
        return self.verdict.limit // KB


@dataclass(frozen=True)
class SglangTable:
    """All entries, the function of SGLang's that they stand in (None: its default), and the group that is served."""

    function: str | None
    served: int
    entries: list[Entry]

    @property
    def environment(self) -> dict[str, str]:
        """What a server of this deployment is started with."""
        kb = next((e.cap_kb for e in self.entries if e.ranks == self.served), None)
        return {} if kb is None else {VARIABLE: str(kb)}

    @property
    def arguments(self) -> list[str]:
        """The same of its command line: where its kernel is behind at every size."""
        mine = next((e.verdict for e in self.entries if e.ranks == self.served), None)
        return ["--disable-custom-all-reduce"] if mine is not None and mine.limit == 0 else []


def sglang_table(setup: Setup) -> SglangTable:
    """The limits of SGLang's all-reduce v2 on the machine of a setup; InputError where it does not run there."""
    hardware, capability = setup.hardware, setup.hardware.compute_capability
    link = hardware.links.intra_node.topology
    if hardware.vendor != "nvidia" or link not in ("switch", "full_mesh"):
        why = f"SGLang's all-reduce v2 joins NVIDIA devices over NVLink, and {hardware.name} has {link} links"
        raise InputError(f"{why} of {hardware.vendor} devices", field="hardware", value=hardware.name)
    if capability is None:
        why = f"{hardware.name} does not say it, and SGLang's table goes by it; write it as in 9.0"
        raise InputError(why, field="hardware.compute_capability")
    function, rows = table_for(capability)
    tables = Tables(setup)
    entries = []
    for ranks, row in rows.items():
        if ranks > hardware.num_devices:
            continue
        kernel, library = tables.kernel(KERNEL, ranks), tables.beside(KERNEL, hardware.backend, ranks)
        if kernel is None or library is None:
            lacking = KERNEL if kernel is None else hardware.backend
            entries.append(Entry(ranks, None, missing=f"no table of {lacking} over {ranks} ranks of this machine"))
            continue
        points = compared(kernel, [(hardware.backend, library, float("inf"))])
        said = verdict(points, min(CAP, row.graph.most))
        sources = tuple(dict.fromkeys([kernel.source, library.source]))
        entries.append(Entry(ranks, said, tuple(points), sources, _line(row, said), note=_note(ranks, row, said)))
    return SglangTable(function, setup.parallelism.tp, entries)


def _line(row: Row, said: Verdict) -> str | None:
    """`graph=(...)` with its new end: lower, or above what the table has now. Up to there the environment raises it."""
    if not said.changes or said.stands is None or said.limit == 0:
        return None
    if said.stands < said.limit <= row.graph.most:
        return None
    cut = row.graph.up_to(said.limit)
    push = f" two_shot_push={_size(cut.two_shot_push)}," if cut.two_shot_push < row.graph.two_shot_push else ""
    return f"graph={spelled(cut)},{push}"


def _note(ranks: int, row: Row, said: Verdict) -> str | None:
    """Where the cap does not cap: a slot of its two-shot push holds two parts of an N-th of a message."""
    reached = min(row.graph.two_shot_push, ranks // 2 * said.limit)
    if not said.changes or not 0 < said.limit < reached:
        return None
    return f"The variable alone leaves its two-shot push up to {size(reached)}"


def spelled(heuristic: Heuristic) -> str:
    """A heuristic as SGLang's table spells it."""
    sizes = [_size(s) for s in (heuristic.one_shot_push, heuristic.one_shot_pull, heuristic.two_shot_pull)]
    if heuristic.multicast is not None:
        least, most = heuristic.multicast
        sizes.append(f"Range({_size(least) if least else 0}, {_size(most)})")
    return f"({', '.join(sizes)})"


def _size(number: int) -> str:
    value, unit = (number / MB, "MB") if number >= MB else (number / KB, "KB")
    text = f"{value:.4g}" if value >= 1000 else f"{value:#.4g}"
    return f"{text.rstrip('.')} * {unit}"
