"""FlashInfer's fused pairs are offered where their links are, inside one node, and nowhere else."""

from __future__ import annotations

import pytest

from ..named_plans import planner_of

DP = ("qwen3-235b-h200-dp4", "prefill", "executor=plan_only")


def mixed(*overrides: str) -> bool:
    """Does any op of any plan use the kernels?"""
    return any(edge.op.impl == "flashinfer_mixed" for edge in planner_of(*DP, *overrides).graph().edges)


@pytest.mark.parametrize("hardware", ["h200-8", "h100-8", "b200-8", "h20-8"])
def test_on_a_switch_inside_a_node_they_are_offered(hardware: str) -> None:
    assert mixed(f"hardware={hardware}")


@pytest.mark.parametrize(
    "overrides",
    [
        ("hardware=l40s-8",),
        ("hardware=h200-2nodes", "parallelism.tp=16"),
        ("hardware=ascend-a3-16",),
        ("hardware.links.intra_node.topology=full_mesh",),
    ],
)
def test_over_other_links_between_nodes_and_on_other_devices_they_are_not(overrides: tuple[str, ...]) -> None:
    assert not mixed(*overrides)
