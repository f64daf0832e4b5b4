"""What must hold of any setup: small ones on invented machines, the same ones in every run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategies import strategies

from ..random_machines import examples, machines
from ..tiny_setups import Machine, SetupFolder, dense_model, latent_model, own_tables
from .test_ranges import check_contiguous, loss

pytestmark = pytest.mark.slow

LINK = "hardware.links.intra_node"
LATENCIES = (f"{LINK}.latency_us", f"{LINK}.collective_overhead_us")
RATES = (f"{LINK}.bandwidth_gb_per_s", f"{LINK}.efficiency")
WITH_TABLES = ("deepseek-r1-h20-tp8", "deepseek-r1-2xh200nodes-tp16", "deepseek-v3-a3-tp16", "qwen3-32b-h200-tp2")
ROUNDED = 1e-9  # of a step: every part of it is rounded to a picosecond, and losses are recorded as floats


@st.composite
def small_setups(draw: st.DrawFn, most: int = 400) -> Callable[[SetupFolder], Setup]:
    """A function from a folder to a setup: dense or latent, with experts, attention DP, tables, an error budget."""
    latent, layers = draw(st.booleans()), draw(st.integers(1, 3))
    tp = draw(st.sampled_from([2, 4]))
    machine = draw(machines())
    if machine.tables and draw(st.booleans()):
        machine = replace(
            machine, tables=(*machine.tables, *own_tables((2, 4), scale=draw(st.sampled_from([0.5, 4.0]))))
        )
    options: dict[str, Any] = {
        "tp": tp,
        "attn_dp": draw(st.sampled_from([1, 2])),
        "loosest": draw(st.sampled_from(["exact", "reordered", "quantized"])),
        "search": {"range_tolerance": draw(st.sampled_from([0.0, 0.005, 0.05]))},
        "modes": {"prefill": {"tokens": [1, most], "sequence_tokens": draw(st.sampled_from([16, 64]))}},
    }
    if options["loosest"] == "quantized" and draw(st.booleans()):
        options["numerics"] = {"error_budget": draw(st.sampled_from([0.005, 0.02]))}
    model = latent_model(layers) if latent else dense_model(layers)
    executor = draw(st.sampled_from(["transformers", "plan_only"]))
    return lambda folder: SetupFolder(folder.folder, executor).setup(model, machine, **options)


# ---- ranges ----------------------------------------------------------------------------------------------------------


@given(made=small_setups(), seed=st.integers(0, 2**32))
@examples(16)
def test_a_range_loses_no_more_than_it_records_at_its_edges_and_at_counts_inside(folder, made, seed):
    planner = ModePlanner(made(folder), "prefill")
    ranges = planner.ranges()
    check_contiguous(planner, ranges)
    rng = random.Random(seed)
    for chosen in ranges:
        inside = {chosen.first, chosen.last, *(rng.randint(chosen.first, chosen.last) for _ in range(6))}
        for tokens in sorted(inside):
            assert loss(planner, chosen, tokens) <= chosen.worst_loss + ROUNDED, (chosen.first, chosen.last, tokens)


# ---- bytes -----------------------------------------------------------------------------------------------------------

_DUMP_ALL = """
import sys
from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.strategy.file import dump
for file in sys.argv[1:]:
    sys.stdout.write(dump(plan_setup(load_setup(file))))
"""


@pytest.mark.slow
def test_the_same_setups_give_the_same_bytes_whatever_the_hash_seed(folder):
    files = []

    @given(made=small_setups(most=16))
    @examples(6)
    def collect(made):
        files.append(made(folder).file)

    collect()
    written = set()
    for seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _DUMP_ALL, *files]
        written.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(written) == 1
    assert written.pop().count(b"end: true") == len(files)


# ---- bandwidths and latencies ----------------------------------------------------------------------------------------


def costs_of(setup: Setup, mode: str, counts: Iterable[int]) -> dict[tuple[str, int], float]:
    """Steps by strategy and count: the library's all-reduce, every uniform strategy, and the plan of the count."""
    planner, found = ModePlanner(setup, mode), {}
    for tokens in counts:
        found["plain", tokens] = planner.step_us(planner.plain(tokens), tokens)
        found["plan", tokens] = planner.step_us(planner.best(tokens), tokens)
        for name in strategies():
            step = planner.uniform(name, tokens).step_us
            if step is not None:
                found[name, tokens] = step
    return found


def assert_no_step_is_shorter(better: Setup, worse: Setup, mode: str, counts: tuple[int, ...]) -> None:
    before, after = costs_of(better, mode, counts), costs_of(worse, mode, counts)
    assert set(before) == set(after)
    shorter = {key: (before[key], after[key]) for key in before if after[key] < before[key] * (1 - ROUNDED)}
    assert shorter == {}


def worsened(setup: Setup, field: str, factor: float) -> Setup:
    """The setup with one figure of its machine worse by a factor."""
    value: Any = setup.hardware
    for part in field.split(".")[1:]:
        value = getattr(value, part)
    worse = value.value / factor if field in RATES or "bandwidth" in field else value.value * factor
    return replace(load_setup(setup.file, (f"{field}={worse!r}",)), lent=setup.lent)


FIGURES = (
    *RATES,
    *LATENCIES,
    "hardware.memory.bandwidth_gb_per_s",
    "hardware.memory.kernel_overhead_us",
)


@pytest.mark.parametrize("field", FIGURES)
@given(made=small_setups(), factor=st.sampled_from([1.001, 1.02, 1.5, 30.0]))
@examples(5)
def test_no_step_gets_shorter_when_a_bandwidth_falls_or_a_latency_rises(folder, field, made, factor):
    setup = made(folder)
    assert_no_step_is_shorter(setup, worsened(setup, field, factor), "prefill", (1, 65, 20_000))


@pytest.mark.parametrize("name", WITH_TABLES)
def test_no_step_of_a_machine_with_tables_gets_shorter_when_its_link_gets_worse(name):
    """The tables stay, scaled: without them a link a little slower than the machine's own was faster."""
    setup = load_setup(name)
    mode = next(iter(setup.deployment.modes))
    counts = setup.deployment.modes[mode].tokens
    for field in (RATES[0], *LATENCIES):
        assert_no_step_is_shorter(setup, worsened(setup, field, 450 / 440), mode, counts)


# ---- time ------------------------------------------------------------------------------------------------------------


def slower(machine: Machine, factor: float) -> Machine:
    """Every rate of a machine divided by a factor, every time multiplied by it."""
    rates = ("link_gb_per_s", "inter_node_gb_per_s", "bf16_tflops", "memory_gb_per_s")
    times = ("hop_us", "call_us", "kernel_us")
    tables = tuple(t | {"latency_us": [time * factor for time in t["latency_us"]]} for t in machine.tables)
    return replace(
        machine,
        tables=tables,
        **{name: getattr(machine, name) / factor for name in rates},
        **{name: getattr(machine, name) * factor for name in times},
    )


@given(machine=machines(), factor=st.sampled_from([0.25, 8.0, 1000.0]), dp=st.sampled_from([1, 2]))
@examples(6)
def test_a_machine_slower_in_everything_takes_longer_by_that_factor(folder, machine, factor, dp):
    """What is left is the rounding of each part to a picosecond."""
    modes = {"prefill": {"tokens": [1, 100], "sequence_tokens": 64, "launch": "graph"}}  # a host is none of its figures
    files = [
        plan_setup(folder.setup(latent_model(2), m, tp=4, attn_dp=dp, modes=modes))
        for m in (machine, slower(machine, factor))
    ]
    times = [
        [(r.last, r.predicted.step_us, r.predicted.all_reduce_us) for r in file.modes["prefill"]] for file in files
    ]
    for (last, *own), (same, *scaled) in zip(*times, strict=True):
        assert same == last
        assert scaled == pytest.approx([time * factor for time in own], rel=1e-5)
