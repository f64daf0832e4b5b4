"""What keeps a time to first token and one between tokens: the largest load, the fewest devices, or what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner

from ..cli.commandline import answer, refused, run

QWEN = "qwen3-32b-h200-tp2"
R1 = "deepseek-r1-h20-tp8"


def asked(*arguments: object) -> tuple[dict[str, Any], dict[int, dict[str, Any]], list[str]]:
    """Loads by mode, figures by number of devices, notes."""
    found = answer("what-if", *arguments)
    load, devices = found["answers"]
    return (
        {each["mode"]: each for each in load["figures"]},
        {each["devices"]: each for each in devices["figures"]},
        found["notes"],
    )


def step_ms(mode: str, tokens: int, *overrides: str) -> float:
    planner = ModePlanner(load_setup(QWEN, overrides), mode)
    return planner.step_us(planner.best(tokens), tokens) / 1000


def test_the_largest_decode_keeps_the_limit_and_one_more_does_not():
    load = asked(QWEN, "--itl-ms", 12)[0]["decode"]
    assert step_ms("decode", load["tokens"]) <= 12 < step_ms("decode", load["tokens"] + 1)
    assert load["time_us"] == pytest.approx(1000 * step_ms("decode", load["tokens"]))
    assert load["ended_by"] == "limit"


def test_a_prompt_longer_than_the_forward_takes_several():
    loads, _, _ = asked(QWEN, "--ttft-ms", 1000, "--set", "modes.prefill.tokens=[1, 1024]")
    assert loads["prefill"]["time_us"] == pytest.approx(4000 * step_ms("prefill", 1024))


def test_the_kv_cache_ends_a_load_that_time_does_not():
    loads, _, _ = asked(R1, "--itl-ms", 500)
    assert (loads["decode"]["tokens"], loads["decode"]["ended_by"]) == (16, "memory")


def test_the_span_of_the_deployment_is_said_to_end_a_load():
    text = run("what-if", QWEN, "--itl-ms", 500, "--set", "modes.decode.tokens=[1, 8]").out
    assert "modes.decode.tokens" in text


def test_a_modelled_step_is_called_a_lower_bound_and_the_load_of_slow_steps_stands_beside_it():
    loads, _, notes = asked(QWEN, "--itl-ms", 35)
    slow = loads["decode"]["slow"]
    assert 2.9 * step_ms("decode", slow) <= 35 < 2.9 * step_ms("decode", slow + 1)
    assert any("lower bound" in note for note in notes)


def test_measured_steps_scale_the_answer():
    measured = "modes.decode.measured_step_us={64: 25000}"
    loads, _, notes = asked(QWEN, "--itl-ms", 30, "--set", measured)
    load = loads["decode"]
    assert (load["measured"], load["slow"]) == (True, None)
    assert step_ms("decode", load["tokens"], measured) <= 30 < step_ms("decode", load["tokens"] + 1, measured)
    assert load["tokens"] < asked(QWEN, "--itl-ms", 30)[0]["decode"]["tokens"]
    assert not any("lower bound" in note for note in notes)


def test_a_step_measured_on_two_devices_makes_one_device_no_faster_than_modelled():
    measured = ("--set", "modes.decode.measured_step_us={64: 25000}")
    modelled = asked(QWEN, "--itl-ms", 40)[1][1]["tokens"]["decode"]
    assert asked(QWEN, "--itl-ms", 40, *measured)[1][1]["tokens"]["decode"] < modelled


def test_the_fewest_devices_keep_the_limit_and_the_next_fewer_do_not():
    arguments = ("qwen2.5-72b-h100-tp4", "--itl-ms", 30, "--requests", 100)
    sizes = asked(*arguments)[1]
    kept = [devices for devices, each in sizes.items() if each["keeps"]]
    assert kept == [8]
    assert sizes[4]["tokens"]["decode"] < 100 <= sizes[8]["tokens"]["decode"]
    assert sizes[1]["reason"], "weights do not fit one device"
    assert "Fewest devices? 8 for 100 requests at once" in run("what-if", *arguments).out


def test_a_limit_that_no_load_keeps_names_the_shortest_time():
    text = run("what-if", QWEN, "--itl-ms", 2).out
    assert "No requests of decode: the shortest ITL is" in text
    assert "More than the 2 of h200-2" in text


@pytest.mark.parametrize(("option", "mode"), [("--ttft-ms", "prefill"), ("--itl-ms", "decode")])
def test_a_mode_that_is_missing_is_asked_for(tmp_path, option, mode):
    other = {"prefill": "decode: {tokens: [1, 8], context_tokens: 64}"}.get(
        mode, "prefill: {tokens: [1, 8], sequence_tokens: 8}"
    )
    file = tmp_path / "deployment.yaml"
    file.write_text(
        "schema: commplan/deployment/v1\nname: one\nmodel: qwen3-32b\nhardware: h200-2\nexecutor: transformers\n"
        "parallelism: {tp: 2}\ndtypes: {weights: bf16, activations: bf16, kv_cache: bf16}\n"
        f"modes: {{{other}}}\nnumerics: {{loosest: reordered}}\n"
    )
    error = refused("what-if", file, option, 50)
    assert error["kind"] == "missing_key"
    assert f"modes.{mode}=" in error["message"]


@pytest.mark.parametrize(
    "arguments",
    [("--requests", 4), ("--itl-ms", 9, "--vary", "tp=1,2"), ("--itl-ms", 9, "--tokens", 4)],
)
def test_a_sweep_and_a_limit_are_asked_apart(arguments):
    assert run("what-if", QWEN, *arguments).code == 2


@pytest.mark.parametrize("value", ["nan", "0", "-1", "inf", "1e9", "x"])
def test_a_limit_is_a_number_of_milliseconds(value):
    assert "milliseconds" in refused("what-if", QWEN, f"--itl-ms={value}")["message"]
