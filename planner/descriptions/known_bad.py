"""Combinations that were reported to hang or to give wrong sums: data, each with its source, in configs/known_bad.

combinations:
- {impl: flashinfer_fused, executors: [vllm], stages: true, reason: "...", source: vllm-project/vllm#43616}

Whatever is not said is any: an entry without `modes` speaks of all of them.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..executors import Executor, executor_names
from ..strategy.errors import InputError
from ..strategy.layout import Parallelism
from ..strategy.words import ForwardMode
from ..strategy.yaml_file import read_mapping
from .base import Spec, Text, build

_Flag = Annotated[bool, Field(strict=True)]


class Combination(Spec):
    """An impl, where it is known to be bad, why, and who says so.

    versions        of the server, as executor files have them
    attn_dp         attention is divided into groups, or not
    stages          layers are divided over stages, or not
    hybrid_experts  experts are divided over fewer ranks than tp, or not
    """

    impl: Text
    executors: tuple[Text, ...]
    versions: tuple[Text, ...] | None = None
    modes: tuple[ForwardMode, ...] | None = None
    attn_dp: _Flag | None = None
    stages: _Flag | None = None
    hybrid_experts: _Flag | None = None
    reason: Text
    source: Text

    def means(self, impl: str, mode: str, executor: Executor, p: Parallelism) -> bool:
        """Is this impl, in this place, what the entry speaks of?"""
        return (
            impl == self.impl
            and executor.name in self.executors
            and (self.versions is None or bool(set(self.versions) & set(executor.versions or ())))
            and (self.modes is None or mode in self.modes)
            and self.attn_dp in (None, p.attn_dp > 1)
            and self.stages in (None, p.pp > 1)
            and self.hybrid_experts in (None, 1 < p.ep < p.tp)
        )


class KnownBad(Spec):
    """A file of them."""

    schema_: Annotated[Literal["commplan/known_bad/v1"], Field(alias="schema")]
    combinations: tuple[Combination, ...]


@cache
def known_bad() -> tuple[Combination, ...]:
    """All that are known; raises InputError for a file that names what there is not."""
    found: list[Combination] = []
    for path in sorted(Path(str(files("commplan.configs") / "known_bad")).glob("*.yaml")):
        for index, each in enumerate(build(KnownBad, read_mapping(path), str(path)).combinations):
            for name in each.executors:
                if name not in executor_names():
                    accepted = f"no such executor; there are {', '.join(executor_names())}"
                    raise InputError(accepted, file=str(path), field=f"combinations[{index}].executors", value=name)
            found.append(each)
    return tuple(found)


def known_bad_reason(impl: str, mode: str, executor: Executor, p: Parallelism) -> str | None:
    """Why an impl is not taken in this place though it could be, with who reported it; None where nothing is known."""
    for each in known_bad():
        if each.means(impl, mode, executor, p):
            return f"{each.reason} ({each.source}; configs/known_bad)"
    return None
