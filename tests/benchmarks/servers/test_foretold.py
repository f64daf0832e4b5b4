"""What plans were foretold to save in servers, beside what the shipped measurements say that they saved."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MEASURED = Path(__file__).parents[3] / "docs" / "measured"
STAND_IN = ("sglang-slow-links.jsonl", "sglang-slow-links-by-nccl.jsonl")
SETS = {STAND_IN[1]: ["hardware.calibrations=[{file: h200-2-no-peer}]"]}  # before copies through the host's memory
LONG = 1024  # tokens; of shorter prompts the server's host takes all of the time


@pytest.mark.parametrize("file", STAND_IN)
def test_without_peer_access_gains_are_foretold_to_a_fifth(bench: SimpleNamespace, file: str) -> None:
    found = list(bench.foretold.gains(MEASURED / file, SETS.get(file, ()), least=LONG))
    assert {gain.configuration for gain in found} >= {"quantised", "six_bits", "four_bits"}
    for gain in found:
        assert gain.foretold == pytest.approx(gain.measured, abs=0.2 * gain.foretold + (gain.scatter or 0.0)), gain


def test_over_nvlink_gains_of_64_layers_are_seen_and_foretold_up_to_two_thirds_too_large(
    bench: SimpleNamespace,
) -> None:
    found = bench.foretold.gains(MEASURED / "sglang-qwen3-32b.jsonl", least=2 * LONG)
    plans = [gain for gain in found if gain.setting.layers == 64 and gain.configuration != "server_kernels"]
    assert len(plans) == 8 and all(gain.is_seen for gain in plans)
    for gain in plans:
        assert 1.0 < gain.foretold / gain.measured < 5 / 3, gain


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Two groups of servers: 10.0 and 8.0 ms, 11.0 and 8.5, and one beside itself that is 10.3."""
    shared = {"card": "a card", "shape": "qwen3-32b", "layers": 4, "links": "as they are", "start": 1, "what": "ttft"}
    taken = {"a": {"unmodified": 10.0, "again": 10.3, "quantised": 8.0}, "b": {"unmodified": 11.0, "quantised": 8.5}}
    lines: list[dict[str, Any]] = [
        {**shared, "group": "+".join(of), "run": run, "configuration": name, "tokens": 4096, "ms": [ms]}
        for run, of in taken.items()
        for name, ms in of.items()
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_gain_is_of_groups_and_beside_it_stands_what_equal_servers_are_apart(
    bench: SimpleNamespace, rows: Path
) -> None:
    (gain,) = bench.foretold.gains(rows)
    assert (gain.configuration, gain.tokens) == ("quantised", 4096)
    assert (gain.measured, gain.scatter) == (pytest.approx(2.25), pytest.approx(1.0))  # 10.0 to 11.0
    assert gain.is_seen and gain.foretold > 0
    page = "\n".join(bench.foretold.pages([gain], markdown=True))
    assert f"| {gain.foretold:.1f} / 2.2 |" in page
    assert f"{gain.foretold / 2.25:.2f} at the median" in page
    hidden = "\n".join(bench.foretold.pages([gain._replace(measured=0.5)], markdown=True))
    assert f"| ({gain.foretold:.1f} / 0.5) |" in hidden and "No gain is beyond the scatter." in hidden


def test_where_no_equal_servers_were_measured_nothing_is_made_of_a_gain(bench: SimpleNamespace, rows: Path) -> None:
    rows.write_text("".join(line + "\n" for line in rows.read_text().splitlines() if '"run": "b"' in line))
    (gain,) = bench.foretold.gains(rows)
    assert (gain.scatter, gain.is_seen) == (None, False)
    assert "No two equal servers" in "\n".join(bench.foretold.pages([gain], markdown=False))
