"""Entries for vLLM's own tables of limits, per compute capability and ranks, as far as this machine was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..cost.op_costs import OpCosts
from ..descriptions.setup import Setup
from ..executors import Executor, load_executor
from ..executors.limits import ByCapability
from .thresholds import KIB, MIB, Point, Rival, Tables, Verdict, compared, size, verdict
from .told import CUSTOM, FLASHINFER, FUSED, SYMMETRIC

FUSION_FILE = "vllm/compilation/passes/fusion/allreduce_rms_fusion.py"
LIMITS_FILE = "vllm/distributed/device_communicators/all_reduce_utils.py"
_CUSTOM_STRICTLY = 16  # its own kernel takes messages below a limit, of a multiple of 16 bytes
_CUSTOM_MOST = 8 * MIB  # `max_size` of CustomAllreduce, to which it cuts every entry
_FILES_OF_FUSION = "FlashInfer's all-reduce without norm goes by this entry too, whatever pass_config says"
RANKS = (2, 4, 6, 8, 16)


@dataclass(frozen=True)
class Entry:
    """One limit of vLLM's: where it stands, what it should be, by which measurements.

    line     of the source, in its own style; None where nothing is to be changed
    missing  why there is no verdict
    """

    file: str
    table: str
    key: str
    ranks: int
    impl: str
    stands: int | None
    verdict: Verdict | None
    points: tuple[Point, ...] = ()
    sources: tuple[str, ...] = ()
    line: str | None = None
    missing: str | None = None
    note: str | None = None


class VllmSource:
    """vLLM's tables for the devices of one machine."""

    def __init__(self, setup: Setup) -> None:
        capability = setup.hardware.compute_capability
        assert capability is not None  # checked when the setup was read
        self._setup, self._capability = setup, capability
        self._server: Executor = load_executor(setup.executor.name)  # with its limits for all ranks
        self._tables = Tables(setup)
        self._costs = OpCosts(setup, next(iter(setup.deployment.modes)))

    def entries(self) -> list[Entry]:
        """The limits of the fused kernel, of vLLM's own, and of symmetric memory, for all ranks that it has."""
        ranks = [n for n in RANKS if n <= self._setup.hardware.num_devices]
        found = [*map(self._fusion, ranks), *map(self._custom, ranks), *self._symmetric(ranks)]
        return [entry for entry in found if entry.verdict is not None or entry.stands is not None]

    # ---- the three tables -------------------------------------------------------------------------------------------

    def _fusion(self, ranks: int) -> Entry:
        assert self._server.stock is not None
        stands = _limit(self._server.stock.fusions[0].max_message_bytes_by, self._capability, ranks)
        rivals = [r for name in self._server.impls if name != FUSED for r in self._rival(FUSED, name, ranks)]
        key = self._capability.replace(".", "")
        where = FUSION_FILE, "FI_ALLREDUCE_FUSION_MAX_SIZE_MB", key
        entry = self._entry(where, ranks, FUSED, stands, rivals, _mb_line, self._norm_us)
        return replace(entry, note=_FILES_OF_FUSION) if entry.line else entry

    def _custom(self, ranks: int) -> Entry:
        assert self._server.stock is not None
        rule = next(r for r in self._server.stock.sums if r.impl == CUSTOM and r.max_message_bytes_by is not None)
        stands = _limit(rule.max_message_bytes_by, self._capability, ranks)
        stands = None if stands is None else stands + _CUSTOM_STRICTLY
        backend = self._setup.hardware.backend
        rivals = [r for name in (*SYMMETRIC.impls, backend) for r in self._rival(CUSTOM, name, ranks)]
        where = LIMITS_FILE, "CUSTOM_ALL_REDUCE_MAX_SIZES", f'"{self._capability}"'
        entry = self._entry(where, ranks, CUSTOM, stands, rivals, _mib_line)
        if entry.line is None or entry.verdict is None or entry.verdict.limit <= _CUSTOM_MOST:
            return entry
        line = None if stands == _CUSTOM_MOST else _mib_line(ranks, _CUSTOM_MOST)
        first = _limit(self._server.impls[FLASHINFER.impls[0]].max_message_bytes_by, self._capability, ranks) or 0
        note = "CustomAllreduce cuts every entry to max_size=8192 * 1024"
        if first > (stands or 0):
            note += f", and FlashInfer's, which is asked first, takes messages up to {size(first)}"
        return replace(entry, line=line, note=note)

    def _symmetric(self, ranks: Sequence[int]) -> Iterator[Entry]:
        where = LIMITS_FILE, "SYMM_MEM_ALL_REDUCE_MAX_SIZES", f'"{self._capability}"'
        for count in ranks:
            limits = {
                n: _limit(self._server.impls[n].max_message_bytes_by, self._capability, count) for n in SYMMETRIC.impls
            }
            name = next((n for n, limit in limits.items() if limit is not None), None)
            if name is not None:
                library = self._rival(name, self._setup.hardware.backend, count)
                yield self._entry(where, count, name, limits[name], list(library), _mib_line)

    # ---- one entry --------------------------------------------------------------------------------------------------

    def _entry(
        self,
        where: tuple[str, str, str],
        ranks: int,
        impl: str,
        stands: int | None,
        rivals: list[Rival],
        line: Callable[[int, int], str],
        more_us: Callable[[int], float] | None = None,
    ) -> Entry:
        width = self._setup.model.hidden_size if impl == FUSED else None
        found = self._tables.kernel(impl, ranks, width)
        backend = self._setup.hardware.backend
        if found is None or not any(name == backend for name, _, _ in rivals):
            lacking = impl if found is None else backend
            return Entry(
                *where, ranks, impl, stands, None, missing=f"no table of {lacking} over {ranks} ranks of this machine"
            )
        points = compared(found, rivals, more_us)
        said = verdict(points, stands)
        sources = tuple(dict.fromkeys([found.source, *(table.source for _, table, _ in rivals)]))
        text = line(ranks, said.limit) if said.changes and said.limit else None
        return Entry(*where, ranks, impl, stands, said, tuple(points), sources, text)

    def _rival(self, kernel: str, name: str, ranks: int) -> Iterator[Rival]:
        """An impl without the norm, where vLLM takes it and there is a table of it."""
        impl = self._server.impls[name]
        most: float = float("inf") if impl.max_message_bytes is None else impl.max_message_bytes
        if impl.max_message_bytes_by is not None:
            most = _limit(impl.max_message_bytes_by, self._capability, ranks) or 0
        found = self._tables.beside(kernel, name, ranks)
        if found is not None and most:
            yield name, found, most

    def _norm_us(self, message_bytes: int) -> float:
        """The residual add and norm that follow a sum which is not fused."""
        kernels = self._setup.executor.kernels_of("add_norm", self._setup.hardware.backend)
        elements = message_bytes / self._costs.device.activation_bytes
        return self._costs.device.passes(kernels, elements, 1, self._setup.model.hidden_size).total_us


def _limit(by: ByCapability | None, capability: str, ranks: int) -> int | None:
    return (by or {}).get(capability, {}).get(ranks)


def _whole(limit: int) -> int:
    """A limit as tables have it: whole MiB, or below that a power of two."""
    return limit // MIB * MIB if limit >= MIB else 1 << (limit.bit_length() - 1)


def _mb_line(ranks: int, limit: int) -> str:
    mb = f"{_whole(limit) / MIB:g}"
    return f"{ranks}: {mb},  # {mb}MB"


def _mib_line(ranks: int, limit: int) -> str:
    whole = _whole(limit)
    text = f"{whole // MIB} * MiB" if whole >= MIB else f"MiB // {MIB // whole}"
    said = f"{whole // MIB} MB" if whole >= MIB else f"{whole // KIB} KB"
    return f"{ranks}: {text},  # {said}"
