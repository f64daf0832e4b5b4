"""commplan's runtime: loads a Hugging Face checkpoint sharded over the ranks and executes a strategy file on it.

    from commplan.runtime import load_model
    executor = load_model("path/to/checkpoint", "strategy.yaml")       # under torchrun
    with executor.forward("prefill"):
        logits = executor.model(input_ids).logits

Names are imported when they are asked for, because torch is heavy and `commplan --help` needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .transformers.executor import Executor
    from .transformers.loading import load_model

__all__ = ["Executor", "load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from .transformers.loading import load_model

        return load_model
    if name == "Executor":
        from .transformers.executor import Executor

        return Executor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
