"""What `plan`, `explain` and `what-if` say of wire formats that a deployment lists and nothing sends."""

from __future__ import annotations

import pytest

from .commandline import answer, refused, run

L40S = "qwen3-32b-l40s-tp4"
SHORT = ("--set", "modes={prefill: {tokens: [1, 512], sequence_tokens: 512}}")
WHY = "no impl of executor transformers sends it on l40s-8"


def listed(formats: str) -> tuple[str, ...]:
    return (*SHORT, "--set", f"numerics.wire_formats={formats}")


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_formats_that_all_do_nothing_are_refused(command, tmp_path):
    more = ("-o", tmp_path / "plan.yaml") if command == "plan" else ()
    error = refused(command, L40S, *listed("[int4]"), *more, code=3)
    assert (error["field"], error["value"]) == ("numerics.wire_formats", "['int4']")
    assert WHY in error["message"] and "list one that is sent here" in error["message"]
    assert not (tmp_path / "plan.yaml").exists()


@pytest.mark.parametrize(
    ("formats", "warned"),
    [
        ("[int8, int4]", f"no sum travels in int4, which numerics.wire_formats lists: {WHY}"),
        (
            "[]",
            "no sum may travel in fewer bits: numerics.wire_formats is empty, although numerics.loosest is quantized",
        ),
    ],
)
def test_a_list_that_does_less_than_it_says_is_warned_of(formats, warned):
    result = run("plan", L40S, *listed(formats), "--brief")
    assert result.code == 0 and f"warning: {warned}\n" in result.err
    assert warned in answer("plan", L40S, *listed(formats), "--brief")["notes"]
    assert warned in answer("explain", L40S, *listed(formats))["notes"]


def test_explain_lists_the_format_that_nothing_sends():
    refusals = {
        str(option["ops"]["attn_out"]): option["reason"]
        for option in answer("explain", L40S, *listed("[int8, int4]"))["alternatives"]
    }
    assert refusals["{'quantized_all_reduce': {'wire': 'int4'}}"] == WHY


def test_what_if_compares_the_others_and_says_what_is_illegal():
    found = answer("what-if", L40S, *SHORT, "--tokens", 512, "--vary", "wire_formats=[int8],[int4],[int8,int4]")
    legal = [point["legal"] for point in found["points"]]
    assert legal == [True, False, True]
    assert WHY in found["points"][1]["reason"]
    assert f"no sum travels in int4, which numerics.wire_formats lists: {WHY}" in found["notes"]
