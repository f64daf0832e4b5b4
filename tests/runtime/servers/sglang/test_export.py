"""The nearest native switch, boundary by boundary, for plans that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from commplan.planner.strategy.file import load
from commplan.runtime.cli.export import command as export
from commplan.runtime.servers.sglang.nearest_flags import Difference, nearest

from .fakes import strategy
from .plans import written

GOLDEN = Path(__file__).parents[3] / "golden"


@pytest.mark.parametrize(
    ("plan", "switch", "matched"),
    [
        ("deepseek-r1-h20-tp8", ("--enable-attn-tp-input-scattered",), 0.966),
        ("qwen3-32b-a2-tp2", ("--enable-quant-communications",), 0.979),
        ("qwen3-235b-h200-dp4", ("--boundary-reduction", "rs"), 0.011),
        ("qwen3-0.6b-cpu-tp2", None, 1.0),
    ],
)
def test_the_nearest_switch(plan: str, switch: tuple[str, ...] | None, matched: float) -> None:
    found = nearest(load(GOLDEN / f"{plan}.yaml"))
    assert found.switch.flags == (() if switch is None else (switch,))
    assert set(found.switch.flags) <= set(found.flags)
    assert found.matched == pytest.approx(matched, abs=0.005)
    assert bool(found.differences) == (matched < 1)


def test_attention_dp_without_the_plugin_differs_by_mode_and_boundary() -> None:
    """SGLang sums a prefill in buffers of all rows, which the plan never does, and sends a decode in shards."""
    file = load(GOLDEN / "qwen3-235b-h200-dp4.yaml")
    found = nearest(file)
    assert ("--attn-dp-size", "4") in found.flags
    (short, long), (decode,) = file.modes["prefill"], file.modes["decode"]
    every, later = tuple(range(94)), tuple(range(1, 94))
    expected = [
        (short, "mlp_in", every, "all_gather", "none"),
        (short, "mlp_out", every, "reduce_scatter_all_reduce", "all_reduce"),
        (short, "attn_in", later, "fused", "none"),
        (short, "head_in", (), "all_gather", "all_reduce"),
        (long, "attn_out", every, "reduce_scatter", "all_reduce"),
        (long, "mlp_in", every, "all_gather", "none"),
        (long, "mlp_out", every, "reduce_scatter", "all_reduce"),
        (long, "attn_in", later, "all_gather", "none"),
        (long, "head_in", (), "all_gather", "all_reduce"),
        (decode, "attn_out", every, "all_reduce", "reduce_scatter"),
        (decode, "mlp_out", every, "reduce_scatter_all_reduce", "reduce_scatter_all_gather"),
        (decode, "attn_in", later, "fused", "none"),
        (decode, "head_in", (), "all_gather", "all_reduce"),
    ]
    assert found.differences == [
        Difference("decode" if part is decode else "prefill", (part.first, part.last), *where_and_what)
        for part, *where_and_what in expected
    ]


def test_what_a_switch_does_not_express_is_said_by_mode_range_boundary_and_layers(tmp_path: Path) -> None:
    file = written(strategy(), tmp_path / "plan.yaml")
    told = json.loads(CliRunner().invoke(export, ["sglang", str(file), "--json"]).output)
    assert told["differences"] == [
        {"mode": mode, "tokens": tokens, "boundary": "attn_out", "layers": [0, 1], **ops}
        for mode, tokens in (("prefill", [17, 256]), ("decode", [3, 8]))
        for ops in ({"planned": "reduce_scatter_all_gather", "native": "all_reduce"},)
    ]
    text = CliRunner().invoke(export, ["sglang", str(file)]).output
    assert "prefill 17-256 tokens, attn_out of layers 0-1: planned reduce_scatter_all_gather, runs all_reduce" in text
