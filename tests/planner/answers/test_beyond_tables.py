"""A time beyond the ends of its table is no measurement, and the plan says so."""

from __future__ import annotations

from pathlib import Path

from ..cli.commandline import answer, run

TABLES = """schema: commplan/calibration/v1
name: short
machine: a pair
library: nccl
provenance: measured
source: made up
ops: [all_reduce]
tables:
- {op: all_reduce, impl: nccl, dtype: bf16, group_size: 2, message_bytes: [1024, 8192], latency_us: [10.0, 12.0]}
"""


def test_the_servers_sum_beyond_its_table_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(TABLES)
    use = ("--set", f"hardware.calibrations=[{{file: {tmp_path / 'short.yaml'}}}]")
    result = run("plan", "qwen3-32b-h200-tp2", *use)
    (line,) = [line for line in result.err.splitlines() if "beyond the ends" in line]
    assert "all_reduce by nccl (" in line and "prefill " in line
    assert [note for note in answer("plan", "qwen3-32b-h200-tp2", *use)["notes"] if note in line]


def test_a_plan_within_its_tables_says_nothing_of_them() -> None:
    assert "beyond the ends" not in run("plan", "qwen3-32b-h200-tp2").err
