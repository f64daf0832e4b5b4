"""What a plan names and nobody has run on a device is said with the plan."""

from __future__ import annotations

import pytest

from ..cli.commandline import answer, run

ASCEND = "hccl: schema and shape contract only; NPU execution unverified"


@pytest.mark.parametrize(("deployment", "said"), [("qwen3-32b-a2-tp2", True), ("qwen3-32b-h100-tp2", False)])
def test_a_plan_by_a_library_that_nobody_has_run_here_says_so(deployment: str, said: bool) -> None:
    result = run("plan", deployment)
    assert (result.code, f"note: {ASCEND}\n" in result.err) == (0, said)
    assert (ASCEND in answer("plan", deployment)["notes"]) == said


def test_an_impl_that_an_op_names_is_meant_too() -> None:
    pairs = ("--set", "numerics.pin=[{op: all_reduce_all_gather, impl: flashinfer_mixed, boundary: attn_out}]")
    sets = ("--set", "executor=plan_only", "--set", "hardware.links.intra_node.multicast=true", *pairs)
    notes = answer("plan", "qwen3-235b-h200-dp4", *sets)["notes"]
    assert any(note.startswith("flashinfer_mixed: needs SM90") for note in notes)
