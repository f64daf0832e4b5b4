"""A plugin of SGLang's for the benchmark alone: every sum over ranks is left out, so that results are wrong.

What such a server takes is the time without communication: the least that any plan of sums could take. Gathers of
logits stay, since no plan touches them.
"""

from __future__ import annotations

from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes, where this folder is on the import path."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(
        "sglang.srt.distributed.parallel_state.GroupCoordinator.all_reduce", left_out, HookType.AROUND
    )


def left_out(all_reduce: Any, group: Any, x: Any, *args: Any, **options: Any) -> Any:
    """In place of a sum of activations: its input. Sums of numbers that ranks agree by run as they are."""
    if x.dim() >= 2 and x.is_floating_point():
        return x
    return all_reduce(group, x, *args, **options)
