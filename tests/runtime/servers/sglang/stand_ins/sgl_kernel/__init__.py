"""Stands in for the CPU build of sglang-kernel, which no package index has: see ../README.md."""

from typing import Any

__version__ = "0+commplan.test.equipment"


def assign_req_to_token_pool_cpu(rows: Any, table: Any, starts: Any, ends: Any, slots: Any, *_: Any) -> None:
    """Write the cache slots of each request into its row of the table, at [start, end)."""
    taken = 0
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=False):
        count = end - start
        table[row, start:end] = slots[taken : taken + count].to(table.dtype)
        taken += count


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"sgl_kernel.{name}: these tests have no CPU build of sglang-kernel")

    return absent
