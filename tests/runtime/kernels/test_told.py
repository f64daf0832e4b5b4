"""What an op of a plan tells the kernel that performs it."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.strategy.file import KINDS
from commplan.runtime.kernels.peers import Told, bare, with_norm


class Noting:
    """Peers that note what they are told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *rows, **told: self.told.append((name, told))


@pytest.mark.parametrize(
    ("op", "told", "arguments"),
    [
        ("int8_all_reduce", Told("gather"), {"algorithm": "gather"}),
        (
            "quantized_all_reduce",
            Told("two_shot", "fp8_e4m3", "128"),
            {"algorithm": "two_shot", "wire": "fp8_e4m3", "group": "128"},
        ),
        ("all_reduce", Told(), {"algorithm": None}),
    ],
)
def test_a_kernel_is_told_the_algorithm_and_the_format_that_an_op_names(
    op: str, told: Told, arguments: dict[str, Any]
) -> None:
    peers: Any = Noting()
    bare(peers, KINDS[op], told, 2)(None)  # type: ignore[arg-type]
    with_norm(peers, KINDS[op], told)(None, None, None, 1e-6)  # type: ignore[arg-type]
    (name, plain), (normed, more) = peers.told
    assert (name, plain) == (op, arguments)
    assert normed == f"{op}_norm" and arguments.items() <= more.items()
