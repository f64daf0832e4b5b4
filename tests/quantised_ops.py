"""Which quantised sums there are. The oracles take this list from the records, and nothing else of what those say."""

from commplan.planner.strategy.file import capabilities
from commplan.planner.strategy.op_kinds import KINDS

QUANTISED = {name: kind.algorithms for name, kind in KINDS.items() if kind.is_quantized}
NAMES_FORMAT = {name for name in QUANTISED if KINDS[name].wires}
WITHOUT_KERNELS = {name for name in QUANTISED if KINDS[name].kernel is None}


def quantised(executor: str) -> dict[str, tuple[str, ...]]:
    """Those that an executor lists, with their algorithms."""
    return {name: algorithms for name, algorithms in QUANTISED.items() if name in capabilities(executor).ops}
