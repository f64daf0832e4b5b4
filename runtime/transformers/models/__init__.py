"""Adapters: one file per Hugging Face architecture, saying how its modules are sharded. A new model is a new file.

Only what differs between families stands in an adapter; the decoder layer, the MLP and the experts are alike in all.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache

from ...errors import RefusedError


@dataclass(frozen=True)
class LinearAttention:
    """How layers of linear attention are sharded by head over attn_tp. Names are relative to `layers.N.linear_attn`.

    column     projections and parameters sharded by head
    blocks     weights that hold heads of several kinds one after another, with the attributes that say how many rows of
               each: loaded whole, then cut block by block
    counts     attributes that count heads or rows of all ranks
    row        projections whose output is partial
    """

    column: tuple[str, ...]
    blocks: dict[str, tuple[str, ...]]
    counts: tuple[str, ...]
    row: tuple[str, ...] = ("out_proj",)


@dataclass(frozen=True)
class Adapter:
    """How one architecture is sharded over the ranks. Names are relative to `layers.N.self_attn`.

    model_type transformers' name of the family, by which it picks its classes
    column     projections sharded by head over attn_tp
    kv         key and value projections: replicated and cut where there are fewer heads than ranks
    row        projections whose output is partial
    latent     readers of the hidden states that a late gather replaces, in the order of their columns
    linear     the same for layers without `self_attn`
    counts     attributes that count heads or groups of all ranks, where the module's code goes by them
    norms      norms of queries and of keys that span the heads of all ranks
    """

    architecture: str
    model_type: str
    column: tuple[str, ...]
    kv: tuple[str, ...] = ()
    row: tuple[str, ...] = ("o_proj",)
    latent: tuple[str, ...] = ()
    linear: LinearAttention | None = None
    counts: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()


@cache
def adapters() -> dict[str, Adapter]:
    """All adapters of this folder by architecture."""
    found = [importlib.import_module(f".{m.name}", __name__).ADAPTER for m in pkgutil.iter_modules(__path__)]
    return {adapter.architecture: adapter for adapter in found}


def adapter_for(architecture: str) -> Adapter:
    """The adapter of an architecture; raises RefusedError by name if there is none."""
    adapter = adapters().get(architecture)
    if adapter is None:
        raise RefusedError(
            f"no adapter for this architecture; there are {', '.join(sorted(adapters()))}",
            field="architectures",
            value=architecture,
        )
    return adapter
