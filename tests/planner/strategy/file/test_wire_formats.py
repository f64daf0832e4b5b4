"""A quantised sum in a file names its wire format and the columns of a scale; anything else is refused."""

from __future__ import annotations

import pytest

from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file import load
from commplan.planner.strategy.file.writing import dump
from commplan.planner.strategy.op_kinds import KINDS, QUANTIZED_ALL_REDUCE
from commplan.planner.strategy.ops import Op, parse, spell
from commplan.planner.strategy.wire_formats import WIRES

from .test_impls import FILE, problems

NAME = QUANTIZED_ALL_REDUCE.name
SHORT = f"{{{NAME}: {{wire: int6, group: 32, algorithm: two_shot, impl: quick_reduce}}}}"
TWO_SHOT = "{int8_all_reduce: {algorithm: two_shot, impl: commplan_triton}}"
ON_AMD = (
    ("backend: nccl", "backend: rccl"),
    ("executor: transformers", "executor: plan_only"),
    ("commplan_triton_norm", "aiter_fused"),
    ("{int8_all_reduce: {algorithm: gather, impl: aiter_fused}}", "all_reduce"),
    ("{reduce_scatter: {impl: aiter_fused}}", "reduce_scatter"),
    ("{all_reduce: {impl: commplan_triton}}", "all_reduce"),
    ("{all_gather: {impl: commplan_triton}}", "all_gather"),
)


def test_every_format_and_group_is_spelled_as_it_is_read():
    for (wire, group, algorithm), error in QUANTIZED_ALL_REDUCE.errors.items():
        op = Op(NAME, algorithm=algorithm, wire_name=wire, scale_group=group, group="attn_tp", residual="gather")
        assert parse(spell(op), "op") == op
        assert op.error is error and op.wire is not None and op.wire.name == wire
    assert spell(parse({NAME: {"wire": "int8", "group": 64, "algorithm": "gather", "over": "tp"}}, "op")) == {
        NAME: {"wire": "int8", "group": 64, "algorithm": "gather", "over": "tp"}
    }


def test_a_file_with_one_is_legal_and_written_as_it_was_read(tmp_path):
    changes = (*ON_AMD, (TWO_SHOT, SHORT))
    assert problems(tmp_path, *changes) == []
    text = FILE
    for old, new in changes:
        text = text.replace(old, new)
    assert dump(load(tmp_path / "plan.yaml")) == text
    assert SHORT in text


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"group": 64, "algorithm": "gather"}, "wire", "needs its wire"),
        ({"wire": "int8", "algorithm": "gather"}, "group", "needs its group"),
        ({"wire": "int8", "group": 64}, None, "needs its algorithm"),
        ({"wire": "int7", "group": 64, "algorithm": "gather"}, "wire", "'int8'"),
        ({"wire": "int8", "group": 48, "algorithm": "gather"}, "group", "not accepted"),
        ({"wire": "int8", "group": True, "algorithm": "gather"}, "group", "not accepted"),
        ({"wire": "int8", "group": 64.0, "algorithm": "gather"}, "group", "not accepted"),
        ({"wire": "int8", "group": "tp", "algorithm": "gather"}, "group", "the ranks are named by `over`"),
        ({"wire": "int4_spikes", "group": "token", "algorithm": "gather"}, "group", "32, 64, 128, 256 columns"),
        ({"wire": "int8", "group": 64, "algorithm": "one_shot"}, "algorithm", "not accepted"),
    ],
)
def test_a_spelling_that_says_too_little_or_what_there_is_not_is_refused_by_field(given, field, words):
    with pytest.raises(InputError) as refused:
        parse({NAME: given}, "attn_out")
    assert refused.value.field == ("attn_out" if field is None else f"attn_out.{NAME}.{field}")
    assert words in refused.value.message


def test_int8_all_reduce_takes_no_format():
    with pytest.raises(InputError, match="has no parameter 'wire'"):
        parse({"int8_all_reduce": {"algorithm": "gather", "wire": "int8"}}, "op")


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (SHORT.replace("int6", "int4_spikes"), "quick_reduce does not do wire int4_spikes; it does int8, int6, int4"),
        (SHORT.replace("32", "64"), "quick_reduce does not do group 64; it does 32"),
        (SHORT.replace("two_shot", "gather"), "quick_reduce does not do algorithm gather; it does two_shot"),
        (SHORT.replace("quick_reduce", "flashinfer_fp8"), "does not do wire int6; it does fp8_e4m3"),
        (SHORT.replace(", impl: quick_reduce", ""), "plan_only has no impl rccl of quantized_all_reduce"),
    ],
)
def test_what_no_kernel_sends_is_refused_with_what_it_does(tmp_path, op, reason):
    found = problems(tmp_path, *ON_AMD, (TWO_SHOT, op))
    assert [field for field, _ in found] == ["modes.prefill[0].layers.1.attn_out"]
    assert reason in found[0][1]


def test_rows_that_a_group_does_not_divide_are_refused(tmp_path):
    narrow = ("hidden_size: 256", "hidden_size: 272")
    (found,) = problems(tmp_path, *ON_AMD, (TWO_SHOT, SHORT), narrow)
    assert found[1] == "a scale for 32 columns needs rows of a multiple of 32, and these have 272"


@pytest.mark.parametrize("executor", ["transformers", "sglang"])
def test_a_library_alone_quantises_to_no_format_but_int8_and_the_reason_names_who_does(tmp_path, executor):
    op = SHORT.replace(", impl: quick_reduce", "")
    found = problems(tmp_path, ("executor: transformers", f"executor: {executor}"), (TWO_SHOT, op))
    (reason,) = [why for field, why in found if field.endswith("layers.1.attn_out")]
    assert f"executor {executor} has no impl nccl of {NAME}; it has commplan_triton, " in reason


PIECES = f"{{{NAME}: {{wire: int8, group: 64, algorithm: gather, pieces: 4, impl: composed_norm}}}}"


def test_a_composed_sum_says_its_pieces_and_is_written_as_it_was_read(tmp_path):
    assert problems(tmp_path, (TWO_SHOT, PIECES)) == []
    assert dump(load(tmp_path / "plan.yaml")) == FILE.replace(TWO_SHOT, PIECES)
    assert parse({"int8_all_reduce": {"algorithm": "gather", "pieces": 1}}, "op").pieces is None


@pytest.mark.parametrize("given", [0, -1, 65, True, 2.0, "2", None])
def test_pieces_are_a_whole_number_from_one(given):
    with pytest.raises(InputError, match="a whole number from 1 to 64 is expected") as refused:
        parse({"int8_all_reduce": {"algorithm": "gather", "pieces": given}}, "attn_out")
    assert refused.value.field == "attn_out.int8_all_reduce.pieces"


@pytest.mark.parametrize("impl", ["commplan_triton", "nccl"])
def test_nobody_else_takes_a_sum_in_pieces(tmp_path, impl):
    by = "" if impl == "nccl" else f", impl: {impl}"
    found = problems(tmp_path, (TWO_SHOT, f"{{int8_all_reduce: {{algorithm: gather, pieces: 2{by}}}}}"))
    theirs = "composed, composed_norm, host_staged, host_staged_norm"
    assert [why for _, why in found] == [
        f"pieces are of an impl of kernels around whole messages ({theirs}); this one is {impl}"
    ]


def test_a_row_travels_in_its_bits_and_what_stands_beside_a_group():
    bytes_each = {name: wire.grouped("64").row_bytes(5120) for name, wire in WIRES.items()}
    assert bytes_each == {
        "int8": 5120 + 80 * 2,
        "int6": 3840 + 80 * 2,
        "int4": 2560 + 80 * 2,
        "int4_spikes": 5120 * 5 / 8,
        "fp8_e4m3": 5120 + 80 * 2,
    }
    op = Op(NAME, algorithm="two_shot", wire_name="int6", scale_group="64")
    assert KINDS[NAME].received_per_row("two_shot", 4, 4, 5120, 2, op.wire) == 2 * 3 / 4 * (3840 + 160)
