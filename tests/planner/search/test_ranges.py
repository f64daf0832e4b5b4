"""Token ranges lose almost nothing: brute force over every token count is the witness."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.ranges import PlannedRange

from ..random_machines import examples, machines
from ..tiny_setups import Machine, SetupFolder, dense_model, latent_model, table

CASES = [(name, mode) for name in preset_names("deployments") for mode in load_setup(name).deployment.modes]
MARGIN = 1e-3


def loss(planner: ModePlanner, chosen: PlannedRange, tokens: int) -> float:
    """Of a range's plan against the best plan at a token count, as a part of the whole step."""
    if not all(planner.pricer.fits(edge, tokens) for edge, _ in chosen.plan.counted):
        return float("inf")
    return planner.step_us(chosen.plan, tokens) / planner.step_us(planner.best(tokens), tokens) - 1


def check(planner: ModePlanner, ranges: list[PlannedRange], counts: set[int]) -> None:
    tolerance = planner.setup.deployment.search.range_tolerance
    for chosen in ranges:
        bound = max(tolerance, chosen.worst_loss) + MARGIN
        for tokens in sorted(counts & set(range(chosen.first, chosen.last + 1))):
            assert loss(planner, chosen, tokens) <= bound, (chosen.first, chosen.last, tokens)


def check_contiguous(planner: ModePlanner, ranges: list[PlannedRange]) -> None:
    first, last = planner.setup.deployment.modes[planner.mode].tokens
    assert (ranges[0].first, ranges[-1].last) == (first, last)
    assert all(r.first <= r.last for r in ranges)
    assert all(a.last + 1 == b.first for a, b in pairwise(ranges))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_every_token_count_up_to_4096_is_served_within_the_recorded_loss(name, mode):
    planner = ModePlanner(load_setup(name), mode)
    ranges = planner.ranges()
    check_contiguous(planner, ranges)
    near = 2 * planner.setup.parallelism.tp
    edges = {edge + side for r in ranges for edge in (r.first, r.last) for side in range(-near, near + 1)}
    check(planner, ranges, edges | set(range(1, 4097)))


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["transformers", "plan_only"])
@given(machine=machines(), tp=st.sampled_from([2, 4]), dp=st.sampled_from([1, 2]), layers=st.integers(1, 3))
@examples(8)
def test_noisy_tables_and_odd_machines_are_served_within_the_recorded_loss(folder, executor, machine, tp, dp, layers):
    writer = SetupFolder(folder.folder, executor, modes={"prefill": {"tokens": [1, 400], "sequence_tokens": 64}})
    planner = ModePlanner(writer.setup(latent_model(layers), machine, tp=tp, attn_dp=dp), "prefill")
    ranges = planner.ranges()
    check_contiguous(planner, ranges)
    check(planner, ranges, set(range(1, 401)))


CROSSING = Machine(
    tables=(
        table("all_reduce", 2, {1: 10.0, 1 << 16: 10.0, 1 << 20: 100.0, 1 << 24: 1600.0}),
        table("reduce_scatter", 2, {1: 20.0, 1 << 18: 20.0, 1 << 20: 25.0, 1 << 24: 400.0}),
        table("all_gather", 2, {1: 20.0, 1 << 18: 20.0, 1 << 20: 25.0, 1 << 24: 400.0}),
    )
)


def test_a_range_ends_with_the_last_full_shard_at_which_its_plan_is_the_cheaper_one(folder):
    """An odd count and the even one above it share a shard of two ranks, so they are judged together."""
    split = {"tp": 2, "launch": "graph"}  # no host beside the two
    setup = folder.setup(dense_model(4), CROSSING, **split, loosest="reordered", search={"range_tolerance": 0})
    planner = ModePlanner(setup, "prefill")
    before, after = planner.ranges()

    def gain(tokens: int) -> float:
        counts = (tokens - 1, tokens)
        return sum(planner.step_us(before.plan, t) - planner.step_us(after.plan, t) for t in counts)

    assert before.last % 2 == 0
    assert gain(before.last) <= 0 < gain(before.last + 2)


@pytest.mark.slow
def test_a_wider_tolerance_makes_no_more_ranges(folder):
    counts = []
    for tolerance in (0, 0.001, 0.005, 0.05, 0.5, 0.99):
        setup = folder.setup(dense_model(4), CROSSING, tp=2, search={"range_tolerance": tolerance}, launch="graph")
        counts.append(len(ModePlanner(setup, "prefill").ranges()))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 1
    assert counts[-1] == 1


@pytest.mark.slow
def test_a_memory_limit_holds_at_every_token_count_of_a_range(folder):
    """INT8 pays over slow links at any count, but its workspace outgrows the limit somewhere below 4096 tokens."""
    slow = Machine(link_gb_per_s=1, kernel_us=0.1, call_us=0.1, hop_us=0.1)
    setup = folder.setup(
        dense_model() | {"intermediate_size": 256}, slow, tp=2, limits={"activation_memory_gb": 4096 * 2600 / 1e9}
    )
    planner = ModePlanner(setup, "prefill")
    ranges = planner.ranges()
    quantised = ["int8_all_reduce" in {edge.op.name for edge in chosen.plan.edges} for chosen in ranges]
    assert any(quantised)
    assert not quantised[-1]
    check(planner, ranges, set(range(1, 4097)))


def test_a_range_ends_with_the_largest_message_that_its_impl_takes():
    """The custom one-shot all-reduce of SGLang takes 16 MiB, which are 1024 rows of 8192 columns in bf16."""
    without_own = (
        "numerics.forbid=[{op: all_reduce, impl: commplan_triton}, {op: all_reduce, impl: commplan_triton_norm}, "
        "{op: int8_all_reduce}, {op: quantized_all_reduce}, {op: reduce_scatter}]"
    )
    planner = ModePlanner(load_setup("qwen2.5-72b-h100-tp4", [without_own]), "prefill")
    ends = {r.last for r in planner.ranges() if "custom_one_shot" in {edge.op.impl for edge in r.plan.edges}}
    assert ends == {1024}
    assert "custom_one_shot" in {edge.op.impl for edge in planner.best(1024).edges}
    assert "custom_one_shot" not in {edge.op.impl for edge in planner.best(1025).edges}


def test_the_file_holds_the_plans_of_the_ranges_and_what_they_lose():
    setup = load_setup("deepseek-r1-h20-tp8")
    written = plan_setup(setup)
    for mode, ranges in written.modes.items():
        for planned, held in zip(ModePlanner(setup, mode).ranges(), ranges, strict=True):
            assert (held.first, held.last) == (planned.first, planned.last)
            assert held.predicted.worst_loss == planned.worst_loss
            assert held.embed_out == planned.plan.embed_out.op
            assert [ops.mlp_out for ops in held.layers] == [edges[3].op for edges in planned.plan.layers]
