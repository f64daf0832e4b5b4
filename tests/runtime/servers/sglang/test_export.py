"""The nearest native switch, boundary by boundary, for plans that ship."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from commplan.planner.cli.export import command as export
from commplan.planner.executors import load_executor
from commplan.planner.strategy.file import DeploymentStamp, HardwareStamp, ModelStamp, Op, Predicted, StrategyFile, load
from commplan.planner.strategy.file.document import FasterRival
from commplan.runtime.servers.sglang.nearest_flags import SWITCHES, Difference, Place, Switch, _words, nearest

from .fakes import PLAIN, a_range, strategy
from .plans import written

GOLDEN = Path(__file__).parents[3] / "golden"
PLANS = Path(__file__).parents[3] / "planner" / "strategy" / "file" / "plans"  # a better plan leaves them as they are


@pytest.mark.parametrize(
    ("plan", "switch", "matched"),
    [
        (PLANS / "late_gather.yaml", ("--enable-attn-tp-input-scattered",), 0.966),
        (PLANS / "int8_gather.yaml", ("--enable-quant-communications",), 0.939),
        (PLANS / "attention_dp.yaml", ("--boundary-reduction", "rs"), 0.011),
        (GOLDEN / "qwen3-0.6b-cpu-tp2.yaml", None, 1.0),
    ],
)
def test_the_nearest_switch(plan: Path, switch: tuple[str, ...] | None, matched: float) -> None:
    found = nearest(load(plan))
    assert tuple((flag.name, *flag.values) for flag in found.switch.flags) == (() if switch is None else (switch,))
    assert all(flag.reason for flag in found.flags)
    assert set(found.switch.flags) <= set(found.flags)
    assert found.matched == pytest.approx(matched, abs=0.005)
    assert bool(found.differences) == (matched < 1)


def test_attention_dp_without_the_plugin_differs_by_mode_and_boundary() -> None:
    """SGLang sums a prefill in buffers of all rows, which the plan never does, and sends a decode in shards."""
    file = load(PLANS / "attention_dp.yaml")
    found = nearest(file)
    assert ("--attn-dp-size", ("4",)) in [flag[:2] for flag in found.flags]
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


def with_faster_flag(file: StrategyFile) -> StrategyFile:
    """The plan, with a flag of the server predicted to be faster in its long prefills."""
    rivals = (FasterRival("--enable-layernorm-sp", 20, 256, 0.034),)
    predicted = Predicted(
        256, 100.0, 100.0, None, 0.0, "formula", 99.0, "formula", (rivals[0].flag or "", 96.6), 100.0, rivals
    )
    short, long = file.modes["prefill"]
    return replace(file, modes={**file.modes, "prefill": (short, replace(long, predicted=predicted))})


def test_nothing_is_lost_is_never_said_while_a_flag_would_win(tmp_path: Path) -> None:
    plain = strategy(
        modes={m: tuple(a_range(r.first, r.last, PLAIN) for r in of) for m, of in strategy().modes.items()}
    )
    file = written(plain, tmp_path / "plain.yaml")
    assert CliRunner().invoke(export, ["sglang", str(file)]).output.endswith("Nothing is lost.\n")
    written(with_faster_flag(plain), file)
    output = CliRunner().invoke(export, ["sglang", str(file)]).output
    assert output.startswith(
        "The stock flag --enable-layernorm-sp is faster than this plan in prefill of 20-256 tokens, by up to 3.4%\n"
    )
    assert "Nothing is lost" not in output
    told = json.loads(CliRunner().invoke(export, ["sglang", str(file), "--json"]).output)
    assert len(told["faster_rivals"]) == 1


def test_sums_by_kernels_of_our_own_are_lost_without_the_plugin(tmp_path: Path) -> None:
    own = a_range(1, 16, Op("all_reduce", impl="commplan_triton_norm"), Op("all_reduce", impl="commplan_triton_norm"))
    bf16 = DeploymentStamp("tiny", "bf16", "0" * 16)
    model = ModelStamp("tiny", "target", "Qwen3ForCausalLM", 2, 64, 0, frozenset(), "0" * 16)
    plan = strategy(
        modes={"prefill": (own,)}, deployment=bf16, model=model, hardware=HardwareStamp("h", "nccl", "0" * 16)
    )
    output = CliRunner().invoke(export, ["sglang", str(written(plan, tmp_path / "own.yaml"))]).output
    assert "commplan_triton_norm stay behind" in output
    assert "Nothing is lost" not in output


STOCK_FLAGS = {flag.name: flag for flag in load_executor("sglang").stock.flags}


@pytest.mark.parametrize(
    "switch", [s for s in SWITCHES if s.flags and s.flags[0].name in STOCK_FLAGS], ids=lambda s: s.name
)
def test_a_switch_runs_the_ops_by_which_its_flag_is_priced(switch: Switch) -> None:
    """What is exported and what plans are held against are one reading of SGLang."""
    flag = STOCK_FLAGS[switch.flags[0].name]
    for mode in ("prefill", "mixed", "decode"):
        for moe, last in itertools.product((False, True), repeat=2):
            if mode not in (flag.modes or ()):
                continue
            for boundary in ("embed_out", "attn_in", "attn_out", "mlp_in", "mlp_out"):
                native = switch.op(Place(mode, None if boundary == "embed_out" else 1, boundary, moe, last))
                op = flag.op(boundary, moe, last)
                assert native == ("none" if op is None else _words(op)), (mode, moe, last, boundary)


def test_every_flag_that_is_priced_is_a_switch_that_can_be_exported() -> None:
    assert set(STOCK_FLAGS) <= {switch.flags[0].name for switch in SWITCHES if switch.flags}
