"""Every figure says where it comes from, and a sum is only as well known as its weakest part."""

from __future__ import annotations

import pytest

from commplan.planner.answers.to_file import collective_provenance
from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.estimate import PROVENANCES, weakest
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.search.planning import ModePlanner

from ..named_plans import planner_of
from ..tiny_setups import Machine, dense_model, table


def test_the_weakest_provenance_wins():
    assert weakest({"measured", "table", "formula"}) == "formula"
    assert weakest({"table", "table (transferred)"}) == "table (transferred)"
    assert weakest(set(PROVENANCES)) == "assumed"


def test_h20_is_priced_by_the_tables_of_h200_and_says_so():
    h20, h200 = (CollectiveCosts(load_setup(n)) for n in ("deepseek-r1-h20-tp8", "qwen3-235b-h200-tp8"))
    for op in ("all_reduce", "all_gather", "reduce_scatter"):
        theirs, ours = (c.collective(op, "nccl", "bf16", "tp", 1 << 24) for c in (h200, h20))
        assert ours.total_us == theirs.total_us
        assert (theirs.provenance, ours.provenance) == ("table", "table (transferred)")
        assert "NVLink" in ours.source


@pytest.mark.parametrize(
    ("name", "provenance"),
    [
        ("deepseek-r1-h20-tp8", "table (transferred)"),
        ("qwen3-32b-h200-tp2", "measured"),
        ("qwen3-32b-a2-tp2", "assumed"),
        ("qwen3-0.6b-cpu-tp2", "measured"),
    ],
)
def test_a_plan_rests_on_the_weakest_of_its_collectives(name, provenance):
    planner = planner_of(name, "prefill")
    assert collective_provenance(planner, planner.plain(512), 512) == provenance


def test_a_calibration_of_this_machine_is_measured_and_a_transferred_one_is_not(folder):
    tables = (table("all_reduce", 2, {1024: 10.0, 65536: 30.0}),)
    own = folder.setup(dense_model(), Machine(tables=tables), tp=2)
    lent = folder.setup(dense_model(), Machine(tables=tables, transferred_because="the same links"), tp=2)
    found = [CollectiveCosts(s).collective("all_reduce", "nccl", "bf16", "tp", 4096) for s in (own, lent)]
    assert [e.provenance for e in found] == ["measured", "table (transferred)"]
    assert "the same links" in found[1].source


@pytest.mark.parametrize("name", preset_names("deployments"))
def test_every_part_of_every_shipped_plan_has_a_provenance_and_a_source(name):
    setup = load_setup(name)
    for mode, work in setup.deployment.modes.items():
        planner, tokens = ModePlanner(setup, mode), work.tokens[1]
        terms = {term for edge in planner.graph().edges for term in edge.terms}
        for estimate in [*(planner.costs.estimate(term, tokens) for term in terms), *planner.fixed(tokens)]:
            assert estimate.provenance in PROVENANCES
            assert estimate.source
            assert estimate.total_us >= 0
