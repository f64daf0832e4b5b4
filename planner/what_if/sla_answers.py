"""Answers about a time to first token and a time between tokens, in words and figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from ..descriptions.setup import Setup
from .marginal_answers import Answer
from .sla import LIMIT_NAMES, SLOWEST, AtSize, Limits, Load, Mode

_COUNTED: dict[Mode, str] = {"prefill": "tokens of prefill", "decode": "requests of decode"}


def load_answer(limits: Limits, loads: dict[Mode, Load]) -> Answer:
    """The largest load of each mode."""
    words = "; ".join(_load_words(load, limits) for load in loads.values())
    figures: list[dict[str, object]] = [{**asdict(load), "limit_us": limits.of(mode)} for mode, load in loads.items()]
    return Answer("Largest load?", words, figures)


def _load_words(load: Load, limits: Limits) -> str:
    limit = limits.of(load.mode)
    assert limit is not None
    name, counted = LIMIT_NAMES[load.mode], _COUNTED[load.mode]
    if load.tokens == 0 and load.ended_by == "memory":
        return f"no {counted}: not one finds room in memory"
    if load.tokens == 0:
        return f"no {counted}: the shortest {name} is {_ms(load.time_us)}, above {_ms(limit)}"
    ends = {
        "limit": f"one more takes longer than {_ms(limit)}",
        "memory": "memory ends it, not the time",
        "span": f"the deployment's span ends there (modes.{load.mode}.tokens), not the time",
    }
    text = f"{load.tokens:,} {counted} with {name} {_ms(load.time_us)} ({ends[load.ended_by]}"
    text += f"; the stock server {load.stock:,})" if load.stock is not None else ")"
    if load.measured:
        return f"{text}, scaled by measured steps"
    sure = f"{load.slow:,}" if load.slow else "none"
    return f"{text}, and {sure} where steps take {SLOWEST:g} times as long as modelled"


def devices_answer(limits: Limits, sizes: list[AtSize], setup: Setup) -> Answer:
    """The fewest devices that keep every limit."""
    figures: list[dict[str, object]] = [
        {
            "devices": each.devices,
            "keeps": each.keeps(limits),
            "keeps_if_slow": each.keeps(limits, slow=True),
            "reason": each.reason or None,
            "tokens": {mode: load.tokens for mode, load in each.loads.items()},
            "time_us": {mode: load.time_us for mode, load in each.loads.items()},
        }
        for each in sizes
    ]
    many = f"{limits.requests:,} request{'s' * (limits.requests != 1)} at once"
    first = next((each for each in sizes if each.keeps(limits)), None)
    if first is None:
        most = setup.hardware.num_devices
        text = f"more than the {most} of {setup.hardware.name} for {many}; {_why(sizes[-1], limits)}"
        return Answer("Fewest devices?", text, figures)
    text = f"{first.devices} for {many}"
    lacking = [each for each in sizes if each.devices < first.devices]
    if lacking:
        text += f"; {_why(lacking[-1], limits)}"
    if any(load.slow is not None for load in first.loads.values()):
        sure = next((each for each in sizes if each.keeps(limits, slow=True)), None)
        where = f"where steps take {SLOWEST:g} times as long as modelled"
        if sure is None:
            text += f"; no size of this machine {where}"
        elif sure is not first:
            text += f"; {sure.devices} {where}"
    return Answer("Fewest devices?", text, figures)


def _why(size: AtSize, limits: Limits) -> str:
    """What a size lacks."""
    if size.reason:
        return f"{size.devices}: {size.reason}"
    parts = []
    for mode, load in size.loads.items():
        limit = limits.of(mode)
        if load.tokens == 0 and load.ended_by == "memory":
            parts.append(f"not one request of {mode} finds room")
        elif load.tokens == 0 and limit is not None:
            parts.append(f"{LIMIT_NAMES[mode]} is {_ms(load.time_us)} at least")
        elif mode == "decode" and load.requests < limits.requests:
            ends = {"limit": "in time", "memory": "in memory", "span": "in the span of modes.decode.tokens"}
            parts.append(f"only {load.requests:,} requests of decode {ends[load.ended_by]}")
    return f"{size.devices}: {', '.join(parts)}"


def notes(setup: Setup, limits: Limits, loads: dict[Mode, Load]) -> Iterator[str]:
    """What the answers rest on."""
    modelled = [mode for mode, load in loads.items() if not load.measured]
    if modelled:
        yield (
            f"steps of {' and '.join(modelled)} are modelled, a lower bound: published ones took 1.6 to {SLOWEST:g} "
            "times as long. Measured ones, under plain all-reduce by the library, scale them: "
            f"--set 'modes.{modelled[0]}.measured_step_us={{TOKENS: US}}'"
        )
    if measured := [mode for mode, load in loads.items() if load.measured]:
        modes = " and ".join(f"modes.{mode}.measured_step_us" for mode in measured)
        yield f"steps are scaled by {modes}; of other sizes they are taken to be as much longer than modelled as here"
    if limits.ttft_us is not None:
        length = setup.deployment.modes["prefill"].sequence_tokens
        yield (
            f"TTFT is that of a prompt of {length} tokens that does not wait: without queue, tokeniser and network; a "
            "prompt longer than the forward takes several, whose growing prefix is not counted"
        )
    if limits.itl_us is not None:
        between = loads["prefill"].time_us if "prefill" in loads and loads["prefill"].tokens else None
        text = "ITL is a decode step: a prefill that runs between two adds its own time"
        yield text + (f", here up to {_ms(between)}" if between else "")


def _ms(us: float) -> str:
    return f"{us / 1000:,.1f} ms" if us >= 100 else f"{us / 1000:,.3f} ms"
