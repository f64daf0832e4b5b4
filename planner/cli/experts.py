"""The comparison of expert backends as `commplan plan` says it: one line, one object in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..answers.experts import AtTokens, Experts
    from ..descriptions.setup import Setup

_LEVEL = 1.005


def experts_line(found: Experts, setup: Setup) -> str:
    """Which backend is faster where, by how much, and what that rests on."""
    who = f"Experts over {found.ranks} ranks"
    if found.missing is not None:
        return f"{who}: an all-to-all cannot be compared: {found.missing}."
    modes = {at.mode: [each for each in found.at if each.mode == at.mode] for at in found.at}
    told = "; ".join(f"{mode} {', '.join(_told(counts))}" for mode, counts in modes.items())
    by = f"the library's all-to-alls ({_basis(found, setup)})"
    basis = f"dispatch and combine are {by}, not overlapped, rows spread evenly"
    if found.ep is not None:
        basis += f"; all_to_all with ep {found.ep}"
    if found.priced_as is not None:
        only = " and ".join(setup.executor.moe_backends)
        basis += f"; both priced as executor {found.priced_as}, since {setup.executor.name} runs {only} alone"
    return f"{who}, the faster backend: {told}; {basis}."


def _basis(found: Experts, setup: Setup) -> str:
    """What their times rest on, and what would be better."""
    from ..cost.estimate import weakest

    exchange = weakest({each.exchange for each in found.at})
    if exchange in ("measured", "table", "table (transferred)"):
        return exchange
    return f"{exchange}: no table of all_to_all over {setup.parallelism.tp} ranks"


def _told(counts: list[AtTokens]) -> Iterator[str]:
    """By token count; a backend is named where it is another than at the count before."""
    before = ""
    for index, at in enumerate(counts):
        tokens = f"{at.tokens:,} tokens" if not index else f"{at.tokens:,}"
        now = "level" if at.gain < _LEVEL else at.cheaper
        gain = "" if now == "level" else f"{'by ' if now != before else ''}{at.gain:.3f}x "
        yield f"{now + ' ' if now != before else ''}{gain}at {tokens}"
        before = now


def experts_json(found: Experts | None) -> dict[str, object] | None:
    """The object under the key `experts` of `--json`."""
    if found is None:
        return None
    return {
        "ep": found.ranks,
        "missing": found.missing,
        "priced_as": found.priced_as,
        "all_to_all_ep": found.ep or found.ranks,
        "at": [
            {
                "mode": at.mode,
                "tokens": at.tokens,
                "step_us": dict(at.step_us),
                "cheaper": at.cheaper,
                "gain": at.gain,
                "exchange": at.exchange,
            }
            for at in found.at
        ],
    }
