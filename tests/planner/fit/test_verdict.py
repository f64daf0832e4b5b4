"""Fits or not, which part misses, and how many tokens there is room for."""

from __future__ import annotations

import re

import pytest

from commplan.planner.answers.breakdown import breakdown
from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.fit.parts import Cache
from commplan.planner.fit.peaks import peak_of
from commplan.planner.fit.verdict import Peak, fit
from commplan.planner.fit.words import does_not_fit, line, reason, ways_out
from commplan.planner.search.planning import ModePlanner

QWEN, R1 = "qwen3-32b-h200-tp2", "deepseek-r1-h20-tp8"
CAPACITY = "hardware.memory.capacity_gb"


def of(deployment: str, *overrides: str, peak: Peak | None = None):
    return fit(load_setup(deployment, overrides), None, peak or Peak())


def test_weights_and_cache_fill_the_static_fraction():
    found = of(QWEN)
    assert found.capacity == 151.4e9 and found.static_fraction == 0.9
    assert found.cache_room == pytest.approx(0.9 * 151.4e9 - found.weight_bytes)
    assert found.kv_tokens_left == int(found.cache_room / found.token_bytes)


def test_a_deployment_says_its_own_fraction():
    assert of(QWEN, "limits.static_fraction=0.5").static == pytest.approx(0.5 * 151.4e9)
    assert of(QWEN, "executor=sglang").static_fraction == 0.875


@pytest.mark.parametrize(
    ("capacity", "peak", "misses"),
    [(151.4, 0, "kv_cache"), (300, 0, None), (30, 0, "weights"), (151.4, 130, "activations"), (300, 140, "kv_cache")],
)
def test_the_part_that_misses_is_named(capacity, peak, misses):
    found = of(QWEN, f"{CAPACITY}={capacity}", peak=Peak(peak * 1e9, 0))
    assert found.misses == misses
    assert found.fits == (misses is None)
    assert (reason(found) == "") == found.fits


def test_activations_beyond_their_share_take_from_the_cache():
    inside, beyond = (of(QWEN, peak=Peak(peak, 0)) for peak in (15e9, 25e9))
    assert inside.cache_room == of(QWEN).cache_room
    assert of(QWEN).cache_room - beyond.cache_room == pytest.approx(25e9 - 0.1 * 151.4e9)


def test_what_a_plan_holds_beyond_plain_all_reduce_is_told_in_tokens():
    found = of(QWEN, peak=Peak(3e9, 1e9))
    assert found.kv_tokens_cost == round(2e9 / found.token_bytes)
    assert f"2.0 GB more than plain all-reduce, {found.kv_tokens_cost:,} tokens" in line(found)


def test_the_most_tokens_of_a_mode_are_found_by_trying_all():
    found, cache = of(QWEN), Cache(load_setup(QWEN))
    fitting = [t for t in range(1, 257) if cache.bytes(cache.asked("decode", t)) <= found.cache_room]
    assert found.most_tokens == {"decode": max(fitting)}
    assert f"fits up to {max(fitting)} tokens of decode" in line(found)


def test_a_mode_ended_where_it_is_said_fits():
    (most,) = of(QWEN).most_tokens.values()
    assert of(QWEN, f"modes.decode.tokens=[1, {most}]").fits
    assert not of(QWEN, f"modes.decode.tokens=[1, {most + 1}]").fits


@pytest.mark.parametrize(
    ("deployment", "overrides", "way"),
    [
        (QWEN, (), "end modes.decode.tokens at 192"),
        (QWEN, ("modes.decode.tokens=[1, 195]",), "limits.static_fraction=0.91"),
        ("qwen2.5-72b-h100-tp4", ("parallelism.tp=2",), "parallelism.tp=8"),
        (R1, ("dtypes.weights=bf16", "hardware=a100-8"), "dtypes.weights: w4a16, mxfp4"),
        (QWEN, ("dtypes.kv_cache=fp8",), None),
    ],
)
def test_the_way_out_is_one_that_fits(deployment, overrides, way):
    setup = load_setup(deployment, overrides)
    found = fit(setup)
    assert found.fits == (way is None)
    if way is not None:
        ways = list(ways_out(setup, found))
        assert any(way in text for text in ways), ways
        assert way in does_not_fit(setup, found).message


def test_weights_that_no_type_makes_small_enough_ask_for_more_devices():
    setup = load_setup(R1, ("parallelism.tp=1",))
    assert does_not_fit(setup, fit(setup)).message.count("parallelism.tp=8") == 1
    small = load_setup(R1, ("hardware.memory.capacity_gb=24",))
    assert does_not_fit(small, fit(small)).message.endswith("take more or larger devices")


# ---- the peak of a plan ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", ["qwen3-32b-a2-tp2", "qwen3-235b-h200-dp4", "deepseek-v3-a3-tp16"])
def test_the_peak_of_a_file_is_that_of_the_plans_it_was_made_of(deployment):
    setup = load_setup(deployment)
    plans, plains = [], []
    for mode in setup.deployment.modes:
        planner = ModePlanner(setup, mode)
        ranges = planner.ranges()
        plans += [breakdown(planner, each.plan, each.last).activation_bytes for each in ranges]
        last = ranges[-1].last
        plains.append(breakdown(planner, planner.plain(last), last).activation_bytes)
    assert peak_of(setup, plan_setup(setup)) == Peak(max(plans), max(plains))


# ---- what ships ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names("deployments"))
def test_a_shipped_deployment_fits_or_says_how_far_it_does(name):
    setup = load_setup(name)
    found = fit(setup)
    said = re.search(r"KV cache ends decode at (\d+) requests", setup.deployment.description or "")
    assert found.misses in (None, "kv_cache")
    assert found.most_tokens == ({} if said is None else {"decode": int(said[1])})
    assert (setup.deployment.loaded_layers is None) == ("layers" not in (setup.deployment.description or ""))
