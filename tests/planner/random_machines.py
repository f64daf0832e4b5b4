"""Hypothesis strategies: invented machines, with or without tables, and settings that bound a test's time."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

from .tiny_setups import Machine, Mapping, table

# Hypothesis mixes in constants that it reads in modules of ours, those that happen to be imported by then: a test would
# get other examples beside other tests. No setting turns that off (test_random_machines.py sees that this does).
providers.is_local_module_file = lambda path: False


def examples(count: int) -> settings:
    """Settings of a property test: so many examples, the same ones in every run, no deadline.

    A failing example is printed as it was found: shrinking would repeat the brute force hundreds of times.
    """
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def sizes(low: float, high: float) -> st.SearchStrategy[float]:
    """Positive numbers, even over the orders of magnitude."""
    exponents = st.floats(0.0, 1.0)
    return exponents.map(lambda x: float(f"{low * (high / low) ** x:.4g}"))


@st.composite
def tables(draw: st.DrawFn, groups: tuple[int, ...]) -> tuple[Mapping, ...]:
    """Noisy tables of some collectives over some groups."""
    found = []
    for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        for group in groups:
            if draw(st.booleans()):
                base, rate = draw(sizes(1, 50)), draw(sizes(1e3, 1e6))
                noise = draw(st.lists(st.floats(0.7, 1.4), min_size=5, max_size=5))
                points = {4**k * 256: round((base + 4**k * 256 / rate) * noise[i], 3) for i, k in enumerate(range(5))}
                found.append(table(op, group, points))
    return tuple(found)


@st.composite
def machines(draw: st.DrawFn, groups: tuple[int, ...] = (2, 4)) -> Machine:
    """Links, memory and launches over the orders of magnitude that devices span."""
    return Machine(
        topology=draw(st.sampled_from(["switch", "full_mesh", "pcie"])),
        link_gb_per_s=draw(sizes(1, 1000)),
        hop_us=draw(sizes(0.1, 50)),
        call_us=draw(sizes(0.1, 100)),
        bf16_tflops=draw(sizes(1, 1000)),
        memory_gb_per_s=draw(sizes(20, 5000)),
        kernel_us=draw(sizes(0.1, 20)),
        tile_rows=draw(st.sampled_from([1, 16, 64])),
        tables=draw(tables(groups)),
    )


@st.composite
def tied_machines(draw: st.DrawFn, groups: tuple[int, ...] = (2, 4)) -> Machine:
    """Devices that compute in no time, with collectives of 10, 20 or 40 us whatever their size: ties everywhere."""
    flat = st.sampled_from([10.0, 20.0, 40.0])
    ops = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
    found = []
    for op in ops:
        for group in groups:
            latency = draw(flat)
            found.append(table(op, group, {1: latency, 1 << 40: latency}))
    return Machine(bf16_tflops=1e9, memory_gb_per_s=1e12, kernel_us=1e-9, tables=tuple(found))
