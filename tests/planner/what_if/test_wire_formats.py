"""What-if tells how far each wire format brings a step towards one without communication."""

from __future__ import annotations

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.what_if.wire_formats import Reached, reached


def test_fewer_bits_reach_farther_and_plain_int4_is_told_as_a_bound():
    whole, least, found = reached(ModePlanner(load_setup("qwen3-32b-l40s-tp4"), "prefill"), 4096)
    by_name = {(each.wire, each.group): each for each in found}
    shares = [by_name[f].share for f in [("int8", "64"), ("int6", "64"), ("int4_spikes", "64"), ("int4", "64")]]
    assert shares == sorted(shares) and 0.4 < shares[0] < shares[-1] < 0.75
    assert [each.wire for each in found if each.is_bound] == ["int4"]
    assert {each.wire for each in found if each.is_listed} == {"int8"}
    for each in found:
        assert each.step_us == pytest.approx(whole - each.share * (whole - least))
        assert each.error > 0


ON_AMD = ("numerics.loosest=quantized", "executor=plan_only")


def on_amd(*more: str) -> ModePlanner:
    return ModePlanner(load_setup("llama-3.1-70b-mi300x-tp8", (*ON_AMD, *more)), "prefill")


def least_step(found: list[Reached], wire: str) -> float:
    return min(each.step_us for each in found if each.wire == wire)


@pytest.mark.parametrize("wire", ["int8", "int6", "int4"])
def test_a_format_reaches_what_a_plan_does_that_may_have_it_alone(wire):
    """In as many pieces, and by the same kernels, as the search may take: none beside kernels that write to peers."""
    planner = on_amd(f"numerics.wire_formats=[{wire}]")
    plan = planner.step_us(planner.best(16384), 16384)
    assert least_step(reached(planner, 16384)[2], wire) == pytest.approx(plan, rel=0.002)


def test_a_format_that_some_kernel_sends_here_is_no_bound():
    _, _, found = reached(on_amd(), 16384)
    assert {each.group for each in found if each.wire == "int4"} == {"32"}
    assert not any(each.is_bound for each in found)


def test_an_executor_that_quantises_nothing_reaches_nothing():
    setup = load_setup("qwen3-32b-h200-tp2", ("executor=vllm",))
    assert reached(ModePlanner(setup, "prefill"), 4096)[2] == []
