"""Rows in shards as SGLang's stages ask for them, on two GPUs: as near to fp32 as plain sums, graphs included."""

from __future__ import annotations

import pytest

from commplan.runtime.ranks.spawning import run_ranks

from .planned_stacks import errors_of_stacks

pytestmark = [pytest.mark.slow, pytest.mark.two_gpus]


def test_rows_in_shards_are_as_close_as_plain_sums_eager_and_replayed() -> None:
    for found in run_ranks(errors_of_stacks, 2, timeout_s=300):
        plain = found.pop("plain")
        assert all(error < 0.05 and exact for error, exact in plain.values()), plain
        assert len(found) == 5
        for kind, of_counts in found.items():
            for count, (error, exact) in of_counts.items():
                assert error < 2.0 * plain[count][0], (kind, count, error, plain[count])
                assert exact, (kind, count)
