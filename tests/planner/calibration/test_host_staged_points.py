"""Sums through host memory are measured where devices do not reach each other, elsewhere where a rule asks for it."""

from __future__ import annotations

import pytest
import yaml

from commplan.planner.calibration.needed_points import Point, points_of
from commplan.planner.cli.calibrate import _only
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError

from ..cli.test_calibrate import calibrated

STAGED, WITH_NORM = "host_staged", "host_staged_norm"
FEW = "all_reduce.one_shot.1"
PAIR = "qwen3-32b-h200-tp2"
NO_PEER = ("hardware=h200-2-no-peer", "modes.prefill.tokens=[1,4096]")
NOT_DIRECT = "hardware.links.intra_node.peer_access=false"
PIN = "numerics.pin=[{op: int8_all_reduce, boundary: attn_out, impl: host_staged_norm}]"


def staged(deployment: str, *overrides: str) -> list[Point]:
    return [p for p in points_of([load_setup(deployment, overrides)]) if p[0] in (STAGED, WITH_NORM)]


def test_a_pair_kept_off_peer_access_measures_its_gather_in_every_listed_format_and_number_of_pieces():
    found = staged(PAIR, *NO_PEER)
    names = ("all_reduce.gather", "int8_all_reduce.gather", "quantized_all_reduce.gather.int8.64")
    wanted = {(WITH_NORM, f"{n}.{k}", 2, "bf16") for n in names for k in (1, 2, 4, 8)}
    assert {p[:4] for p in found} == wanted | {(WITH_NORM, FEW, 2, "bf16")}
    six = staged(PAIR, *NO_PEER, "numerics.wire_formats=[int8,int6]")
    assert "quantized_all_reduce.gather.int6.64.8" in {name for _, name, *_ in six}


def test_more_ranks_gather_too():
    found = staged("qwen3-32b-l40s-tp4", NOT_DIRECT)
    assert {name.split(".")[1] for _, name, *_ in found if name != FEW} == {"gather"}
    assert {size for _, _, size, *_ in found} == {4}


def test_of_a_model_of_several_streams_it_is_measured_without_the_norm():
    found = staged("deepseek-v4-pro-b200-tp8", "numerics.loosest=quantized", NOT_DIRECT)
    assert {kind for kind, *_ in found} == {STAGED}


def test_where_nothing_may_be_quantised_rows_are_measured_as_they_are():
    found = staged(PAIR, *NO_PEER, "numerics.loosest=reordered")
    assert {name for _, name, *_ in found} == {FEW, *(f"all_reduce.gather.{pieces}" for pieces in (1, 2, 4, 8))}


def test_few_rows_are_measured_in_one_launch_up_to_what_its_file_lets_it_have():
    found = [rows for _, name, _, _, rows, *_ in staged(PAIR, *NO_PEER) if name == FEW]
    assert found == [1, 4, 16, 64, 128, 256]  # 2.5 MiB of rows of 5120
    decode = "modes.prefill.tokens=[1,32]", "modes.decode.tokens=[1,8]"
    short = [rows for _, name, _, _, rows, *_ in staged(PAIR, NO_PEER[0], *decode) if name == FEW]
    assert short == [1, 4, 16, 32]


def test_where_no_sum_may_be_another_only_our_own_kernel_is_measured():
    assert {name for _, name, *_ in staged(PAIR, *NO_PEER, "numerics.loosest=exact")} == {FEW}


@pytest.mark.parametrize(
    ("deployment", "overrides"),
    [
        (PAIR, ()),
        ("qwen3-32b-l40s-tp4", ()),
        ("deepseek-r1-2xh200nodes-tp16", (NOT_DIRECT,)),
        ("qwen3-32b-a2-tp2", ("executor=transformers",)),
    ],
    ids=["NVLink", "peer access over PCIe", "two nodes", "Ascend"],
)
def test_elsewhere_no_time_is_spent_on_it(deployment, overrides):
    assert staged(deployment, *overrides) == []


def test_where_devices_reach_each_other_a_rule_that_names_it_has_it_measured():
    found = staged(PAIR, PIN)
    assert {name.rpartition(".")[2] for _, name, *_ in found} == {"1", "2", "4", "8"}
    assert {kind for kind, *_ in found} == {WITH_NORM}


def test_an_impl_alone_or_some_op_of_it_is_measured_for_a_table_beside_others(tmp_path, monkeypatch):
    given = (PAIR, *(part for text in NO_PEER for part in ("--set", text)))
    found = calibrated(tmp_path / "all.yaml", monkeypatch, *given, "--only", WITH_NORM)
    assert {t["impl"] for t in found["tables"]} == {WITH_NORM}
    assert {t.get("pieces") for t in found["tables"]} == {None, 2, 4, 8}
    some = calibrated(tmp_path / "some.yaml", monkeypatch, *given, "--only", f"{WITH_NORM}.int8_all_reduce")
    assert {(t["op"], t["impl"]) for t in some["tables"]} == {("int8_all_reduce", WITH_NORM)}
    op = calibrated(tmp_path / "op.yaml", monkeypatch, *given, "--only", "int8_all_reduce.gather")
    assert {t["impl"] for t in op["tables"]} >= {"composed_norm", WITH_NORM}
    points = points_of([load_setup(PAIR)])
    with pytest.raises(InputError, match="is not among what these deployments ask about"):
        _only((WITH_NORM,), points)


def test_what_is_measured_alone_stands_beside_the_tables_that_there_are(tmp_path, monkeypatch):
    given = (PAIR, *(part for text in NO_PEER for part in ("--set", text)))
    path = tmp_path / "staged.yaml"
    tables = calibrated(path, monkeypatch, *given, "--only", WITH_NORM)
    assert yaml.safe_load(path.read_text()) == tables
    use = f"hardware.calibrations=[{{file: {path}}}, {{file: h200-2-no-peer}}]"
    planner = ModePlanner(load_setup(PAIR, (*NO_PEER, use)), "prefill")
    plan = planner.best(4096)  # 7 us, whatever the size, in the stand-in's samples
    assert {e.op.impl for layer in plan.layers for e in layer if e.op.kind.sums} == {WITH_NORM}
