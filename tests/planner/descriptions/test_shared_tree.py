"""What a group reaches of a link that all devices share."""

from __future__ import annotations

import pytest

from commplan.planner.cost.links import bandwidth_bytes_per_us
from commplan.planner.descriptions.hardware import share_of
from commplan.planner.descriptions.loader import load_setup


def test_between_two_known_groups_the_share_goes_by_logarithms_and_beyond_them_it_stays():
    shares = {2: 4.0, 4: 1.0, 8: 0.25}
    assert [share_of(shares, ranks) for ranks in (1, 2, 4, 8, 16)] == [4.0, 4.0, 1.0, 0.25, 0.25]
    assert share_of({2: 4.0, 8: 1.0}, 4) == pytest.approx(2.0)
    assert share_of({}, 4) == 1.0


@pytest.mark.parametrize(("ranks", "reached"), [(2, 0.61), (4, 0.15), (8, 0.04)])
def test_eight_l40s_share_a_tree_and_a_changed_efficiency_moves_every_group(ranks, reached):
    link = load_setup("qwen3-32b-l40s-tp4").hardware.links.intra_node
    assert bandwidth_bytes_per_us(link, ranks, 8) == pytest.approx(32e3 * reached, rel=0.02)
    half = load_setup("qwen3-32b-l40s-tp4", ("hardware.links.intra_node.efficiency=0.075",)).hardware.links.intra_node
    assert bandwidth_bytes_per_us(half, ranks, 8) == pytest.approx(bandwidth_bytes_per_us(link, ranks, 8) / 2)


@pytest.mark.parametrize("machine", ["rtx-4090-8", "rtx-5090-8", "h100-pcie-8"])
def test_pcie_machines_without_tables_have_the_shares_of_the_usual_host(machine):
    """The host of the L40S tables reaches 0.15 and 0.04 of its link over 4 and 8, other hosts a third and more."""
    usual, mine = (
        load_setup("qwen3-32b-l40s-tp4", (f"hardware={name}",)).hardware.links.intra_node
        for name in ("rtx-pro-6000-8", machine)
    )
    assert [mine.efficiency_of(ranks) for ranks in (2, 4, 8)] == [usual.efficiency_of(ranks) for ranks in (2, 4, 8)]
