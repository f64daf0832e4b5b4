"""Sums around the library are measured whole: named by what they are told, and a table for each number of pieces."""

from __future__ import annotations

import pytest

from commplan.planner.calibration.needed_points import points_of
from commplan.planner.calibration.result import calibration_of, dump
from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.calibration import Calibration
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.composed_points import parse_point, spell_point
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.op_kinds import QUANTIZED_ALL_REDUCE
from commplan.planner.strategy.ops import Op
from commplan.planner.strategy.yaml_file import parse_yaml

IMPL = "composed_norm"
NO_PEER = ("hardware=h200-2-no-peer", "modes.prefill.tokens=[1,4096]", "modes.prefill.launch=graph")
MACHINE = {"ranks": "2", "torch": "2.13.0", "backend": "nccl", "device": "an invented one"}


def test_every_sum_is_named_by_what_it_is_told():
    for wire, group, algorithm in QUANTIZED_ALL_REDUCE.errors:
        op = Op("quantized_all_reduce", algorithm, impl=IMPL, wire_name=wire, scale_group=group, pieces=4)
        name = spell_point(op.name, algorithm, wire, group, 4)
        assert " " not in name and parse_point(name, IMPL) == op
    assert parse_point("all_reduce.gather.2", IMPL) == Op("all_reduce", "gather", impl=IMPL, pieces=2)
    assert parse_point("int8_all_reduce.gather.1", IMPL) == Op("int8_all_reduce", "gather", impl=IMPL)


@pytest.mark.parametrize(
    "name",
    [
        *("all_reduce.one_shot.2", "int8_all_reduce.gather", "int8_all_reduce.ring.1", "int8_all_reduce.gather.0"),
        *("int8_all_reduce.gather.int6.64.1", "quantized_all_reduce.gather.1", "quantized_all_reduce.gather.int6.48.1"),
        *("quantized_all_reduce.gather.int7.64.1", "int8_all_reduce.gather.65", "int8_all_reduce.gather.x", ""),
    ],
)
def test_a_name_that_stands_for_no_sum_is_refused(name):
    with pytest.raises(InputError, match="pieces is expected"):
        parse_point(name, IMPL)


def sums(*overrides: str) -> set[str]:
    found = points_of([load_setup("qwen3-32b-h200-tp2", (*NO_PEER, *overrides))])
    return {name for impl, name, *_ in found if impl.startswith("composed")}


def test_a_pair_measures_its_gather_in_every_listed_format_and_in_every_number_of_pieces():
    names = ("int8_all_reduce.gather", "quantized_all_reduce.gather.int8.64")
    assert sums() == {f"{name}.{pieces}" for name in names for pieces in (1, 2, 4, 8)}
    assert sums("numerics.wire_formats=[int8,int4]") == sums()  # offered by nothing
    assert "quantized_all_reduce.gather.int6.64.8" in sums("numerics.wire_formats=[int8,int6]")
    assert sums("numerics.loosest=reordered") == set()


def test_more_ranks_measure_their_two_shots_by_rows_of_whole_shards():
    found = points_of([load_setup("qwen3-32b-l40s-tp4", ("modes.prefill.tokens=[1,1022]",))])
    named = [point for point in found if point[0] == IMPL]
    assert {name.split(".")[1] for _, name, *_ in named} == {"two_shot"}
    assert all(rows % size == 0 for _, _, size, _, rows, *_ in named)
    assert all(rows >= 64 * int(name.rpartition(".")[2]) for _, name, _, _, rows, *_ in named if name[-1] != "1")


def test_what_was_measured_prices_the_plan_and_chooses_its_pieces(tmp_path):
    setup = load_setup("qwen3-32b-h200-tp2", NO_PEER)
    points = points_of([setup])

    def us(point):
        kind, name, _, _, rows, *_ = point
        wins = kind == IMPL and name == "int8_all_reduce.gather.4"
        return 2.0 + rows / 1e3 if wins else 20.0 + rows / 10

    calibration = calibration_of({p: [[us(p)] * 5] * 2 for p in points}, setup.executor, "nccl", "x", MACHINE, "a test")
    assert build(Calibration, parse_yaml(dump(calibration)), "calibration.yaml") == calibration
    tables = {(t.algorithm, t.wire, t.scale_group, t.pieces) for t in calibration.tables if t.impl == IMPL}
    assert tables == {("gather", *f, p) for f in ((None, None), ("int8", "64")) for p in (None, 2, 4, 8)}
    (tmp_path / "calibration.yaml").write_text(dump(calibration))
    use = f"hardware.calibrations=[{{file: {tmp_path / 'calibration.yaml'}}}]"
    planner = ModePlanner(load_setup("qwen3-32b-h200-tp2", (*NO_PEER, use)), "prefill")
    ops = {edge.op for layer in planner.best(4096).layers for edge in layer if edge.op.kind.is_quantized}
    assert ops == {Op("int8_all_reduce", "gather", impl=IMPL, pieces=4)}
