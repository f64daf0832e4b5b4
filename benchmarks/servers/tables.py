"""Tables of the rows that were kept: times, what is saved of the gap to no communication, and what was aimed at.

Times of one group are compared with the unmodified server that stood beside them, so that what differs from start to
start falls out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from configurations import AGAIN, BOUND, CONFIGURATIONS, UNMODIFIED
from kept import SIZES, Kept, Key, Setting
from shapes import SHAPES

_TITLES = {
    "ttft": "Time to first token of one prompt, ms, by its tokens",
    "decode": "Step of a decode, ms, by requests",
}
_AIMED_AT = "qwen3-32b"
_KERNELS, _ENDS = 16, (("some kernel runs", "busy_us"), ("from first to last", "span_us"))


class Comparison:
    """One key of one setting: medians over the runs of groups."""

    def __init__(self, kept: Kept, key: Key) -> None:
        self.key, self.runs = key, kept.by_run(key)

    def ms(self, name: str) -> float | None:
        """The median over runs of a configuration."""
        return _median([run[name] for run in self.runs.values() if name in run])

    def saved(self, name: str) -> float | None:
        """How many ms less than the unmodified server that stood beside it."""
        return _median([run[UNMODIFIED] - run[name] for run in self.runs.values() if {name, UNMODIFIED} <= set(run)])

    def share(self, name: str) -> float | None:
        """What is saved of the gap between the unmodified server and one without communication.

        None where two unmodified servers side by side are as far apart: it is a share of nothing then.
        """
        saved, gap = self.saved(name), self.saved(BOUND)
        return None if saved is None or gap is None or gap <= (self.beside_itself() or 0.0) else saved / gap

    def beside_itself(self) -> float | None:
        """The largest difference of two unmodified servers side by side."""
        found = [abs(run[UNMODIFIED] - run[AGAIN]) for run in self.runs.values() if {AGAIN, UNMODIFIED} <= set(run)]
        return max(found, default=None)

    def from_start_to_start(self) -> float | None:
        """Range of the unmodified server's medians over its starts."""
        found = [run[name] for run in self.runs.values() for name in (UNMODIFIED, AGAIN) if name in run]
        return max(found) - min(found) if len(found) > 1 else None

    @property
    def scatter(self) -> float | None:
        """What a difference has to exceed to be one."""
        beside = self.beside_itself()
        return self.from_start_to_start() if beside is None else beside


class Aim(NamedTuple):
    """What a configuration is to reach: `share` of the gap, or no loss beyond the scatter where that is None."""

    name: str
    kind: str
    sizes: tuple[int, ...]
    share: tuple[float, ...] | None = None
    both_ways: bool = False


_TTFT, _SHORT, _DECODE = (4096, 8192, 16384), (16, 64, 256, 512, 1024, 2048), (1, 16, 64)
AIMS = (
    Aim("quantised", "ttft", _TTFT, (0.62, 0.58, 0.48)),
    Aim("reordered", "ttft", _TTFT, (0.43, 0.36, 0.26)),
    *(Aim(name, "ttft", _SHORT) for name in ("quantised", "reordered")),
    *(Aim(name, "decode", _DECODE[:2], (0.25, 0.12)) for name in ("quantised", "reordered")),
    *(Aim(name, "decode", _DECODE) for name in ("quantised", "reordered")),
    Aim("server_kernels", "ttft", (*_SHORT, *_TTFT), both_ways=True),
    Aim("server_kernels", "decode", _DECODE, both_ways=True),
)
BEST_FLAG, AGAINST_FLAG = "layernorm_sp", ("quantised", "reordered")


def verdicts(comparisons: dict[Key, Comparison]) -> Iterator[str]:
    """What is aimed at, and whether it is met, where both were measured."""
    for aim in AIMS:
        for place, size in enumerate(aim.sizes):
            at = comparisons.get(Key(aim.kind, size))
            if at is not None and at.saved(aim.name) is not None:
                yield from _of_share(aim, place, at) if aim.share else _of_scatter(aim, at)
    for key, at in comparisons.items():
        flag = at.saved(BEST_FLAG)
        for name in AGAINST_FLAG:
            saved = at.saved(name)
            if key.kind == "ttft" and flag is not None and saved is not None:
                said = "faster" if saved > flag else "slower"
                yield f"{name}, {_where(key)}: {said} than {BEST_FLAG} by {abs(saved - flag):.2f} ms"


def _of_share(aim: Aim, place: int, at: Comparison) -> Iterator[str]:
    share, wanted = at.share(aim.name), (aim.share or ())[place]
    if share is not None:
        said = "met" if share >= wanted else f"missed by {wanted - share:.0%}"
        yield f"{aim.name}, {_where(at.key)}: {share:.0%} of the gap, aimed at {wanted:.0%}: {said}"


def _of_scatter(aim: Aim, at: Comparison) -> Iterator[str]:
    saved, scatter = at.saved(aim.name) or 0.0, at.scatter
    if scatter is not None:
        within = abs(saved) <= scatter if aim.both_ways else saved >= -scatter
        wanted = "within the scatter" if aim.both_ways else "not slower"
        yield (
            f"{aim.name}, {_where(at.key)}: {-saved:+.2f} ms beside a scatter of {scatter:.2f}, aimed at {wanted}: "
            + ("met" if within else "missed")
        )


def _where(key: Key) -> str:
    return f"{key.size} tokens" if key.kind == "ttft" else f"decode of {key.size}"


def tables(kept: Kept, markdown: bool) -> str:
    """All settings, one after the other."""
    parts = []
    for setting in kept.settings():
        own = kept.of(setting)
        parts += [f"{'## ' if markdown else '== '}{setting}", _does_not_count(own, setting)]
        comparisons = {key: Comparison(own, key) for kind in SIZES for key in own.keys(kind)}
        for kind in SIZES:
            of_kind = [found for key, found in comparisons.items() if key.kind == kind]
            if of_kind:
                parts += [_TITLES[kind] + ". " + _counts(own, kind), table(_times(of_kind), markdown)]
                shares = _shares(of_kind)
                if len(shares) > 1:
                    parts += ["Saved of the gap to a server without communication", table(shares, markdown)]
        parts += [_list("Aims", list(verdicts(comparisons)), markdown)] if _is_aimed_at(setting) else []
        parts += list(_profiles(own, markdown))
        parts += [_list("Servers", list(_servers(own)), markdown)]
    return "\n\n".join(part for part in parts if part)


def _does_not_count(kept: Kept, setting: Setting) -> str:
    """Where the unmodified server lacks what it has by default, it is no rival."""
    shape = SHAPES.get(setting.shape)
    told = [row["on"] for row in kept.rows if row["what"] == "fusion" and row["configuration"] == UNMODIFIED]
    if shape is None or not shape.default_fusion or (told and all(told)):
        return ""
    return (
        "DOES NOT COUNT: by default SGLang sums these models by FlashInfer's fused kernel up to 2048 tokens, and the "
        "logs of these servers do not say that it ran."
    )


def _is_aimed_at(setting: Setting) -> bool:
    """Aims are for all layers: with few, the host's time hides what the device saves."""
    whole = SHAPES[_AIMED_AT].config["num_hidden_layers"]
    return (setting.shape, setting.layers, setting.links) == (_AIMED_AT, whole, "as they are")


def _counts(kept: Kept, kind: str) -> str:
    rows = [row for row in kept.rows if row["what"] == kind]
    starts, counts = len({row["run"] for row in rows}), sorted({len(row["ms"]) for row in rows})
    samples = f"{counts[0]} samples" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} samples"
    starts_of = "start" if starts == 1 else "starts of all groups together"
    return f"Medians over {starts} {starts_of}, each of {samples}; in brackets against the unmodified server beside it."


def _names(comparisons: Sequence[Comparison]) -> list[str]:
    measured = {name for found in comparisons for run in found.runs.values() for name in run}
    return [name for name in CONFIGURATIONS if name in measured] + sorted(measured - set(CONFIGURATIONS))


def _times(comparisons: Sequence[Comparison]) -> list[list[str]]:
    lines = [["", *(str(found.key.size) for found in comparisons)]]
    for name in _names(comparisons):
        what = CONFIGURATIONS[name].what if name in CONFIGURATIONS else ""
        lines.append([f"{name}: {what}" if what else name, *(_cell(found, name) for found in comparisons)])
    for title, ask in (
        ("two unmodified side by side, at most", Comparison.beside_itself),
        ("unmodified from start to start", Comparison.from_start_to_start),
    ):
        values = [ask(found) for found in comparisons]
        if any(value is not None for value in values):
            lines.append([title, *("-" if value is None else f"{value:.2f}" for value in values)])
    return lines


def _cell(found: Comparison, name: str) -> str:
    ms, saved = found.ms(name), found.saved(name)
    if ms is None:
        return "-"
    text = f"{ms:.2f}" if ms < 100 else f"{ms:.1f}"
    return text if saved is None or name == UNMODIFIED else f"{text} ({-saved:+.2f})"


def _shares(comparisons: Sequence[Comparison]) -> list[list[str]]:
    lines = [["", *(str(found.key.size) for found in comparisons)]]
    for name in _names(comparisons):
        found = [at.share(name) for at in comparisons]
        if name not in (UNMODIFIED, AGAIN, BOUND) and any(share is not None for share in found):
            lines.append([name, *("-" if share is None else f"{share:.0%}" for share in found)])
    return lines


def _servers(kept: Kept) -> Iterator[str]:
    """The latest word on each configuration: its plan, whether it started, what it counted."""
    latest = {row["configuration"]: row for row in kept.servers()}
    for name, row in latest.items():
        ups = [found["up"] for found in kept.servers() if found["configuration"] == name]
        said = [f"{sum(ups)} of {len(ups)} starts came up", *([f"plan {row['plan']}"] if row.get("plan") else [])]
        said += [f"{field} {value}" for field, value in (row.get("says") or {}).items()]
        told = [found for found in kept.rows if found["what"] == "counters" and found["configuration"] == name]
        if told:
            wrong = [line for found in told for line in found["differences"]]
            said.append(f"counters differ: {wrong[0]}" if wrong else "counters exact")
        yield f"{name}: {'; '.join(said)}"


def _profiles(kept: Kept, markdown: bool) -> Iterator[str]:
    """Kernels side by side, by what was profiled: the latest of each configuration."""
    latest: dict[Key, dict[str, dict[str, Any]]] = {}
    for row in kept.rows:
        if row["what"] == "profile":
            latest.setdefault(Key(row["kind"], row["size"]), {})[row["configuration"]] = row
    for key, by_name in latest.items():
        longest: dict[str, float] = {}
        for row in by_name.values():
            for kernel, us in row["us"].items():
                longest[kernel] = max(longest.get(kernel, 0.0), us)
        lines = [["", *by_name]]
        for kernel in sorted(longest, key=lambda one: -longest[one])[:_KERNELS]:
            lines.append(
                [kernel, *(f"{row['us'][kernel]:.1f}" if kernel in row["us"] else "-" for row in by_name.values())]
            )
        lines += [[text, *(f"{row[field]:.1f}" for row in by_name.values())] for text, field in _ENDS]
        others = {name: row.get("busy_us_of_others") for name, row in by_name.items()}
        if any(others.values()):
            told = (", ".join(f"{us:.1f}" for us in busy) if busy else "-" for busy in others.values())
            lines.append(["some kernel runs, other ranks", *told])
        yield f"Kernels of a forward, {_where(key)}, us, rank 0, by torch's profiler"
        yield table(lines, markdown)
        idle = [f"{name}: {_idle(row['idle'])}" for name, row in by_name.items() if row.get("idle")]
        if idle:
            yield _list(f"Between which kernels nothing runs, {_where(key)}, us", idle, markdown)


def _idle(gaps: dict[str, float]) -> str:
    return "; ".join(f"{pair} {us:.1f}" for pair, us in gaps.items())


def _list(title: str, lines: Sequence[str], markdown: bool) -> str:
    marked = "\n".join(f"- {line}" if markdown else f"  {line}" for line in lines)
    return f"{title}:\n{chr(10) if markdown else ''}{marked}" if lines else ""


def table(lines: list[list[str]], markdown: bool) -> str:
    """Cells in columns, or a Markdown table; the first line is the head."""
    if markdown:
        head, *rest = lines
        ruled = [head, ["---", *["---:"] * (len(head) - 1)], *rest]
        return "\n".join(f"| {' | '.join(line)} |" for line in ruled)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
