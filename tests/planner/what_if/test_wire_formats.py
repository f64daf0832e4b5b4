"""What-if tells how far each wire format brings a step towards one without communication."""

from __future__ import annotations

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.what_if.wire_formats import reached


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
