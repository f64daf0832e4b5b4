"""What were plans foretold to save in the servers that were measured, and what did they save?

    python benchmarks/servers/foretold.py rows.jsonl more.jsonl [--set FIELD=VALUE] [--markdown]

Plans are made again of the shapes and configurations of the rows (sglang.py), for one count of tokens each and with
prefill from graphs, as these servers had it. Both gains are over the unmodified server, beside which the plan's was
measured. A gain that lies within what equal servers were apart is in brackets: nothing can be said of it, nor of those
whose equals were not measured. Needs no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from configurations import CONFIGURATIONS, overrides
from kept import Kept, Key, Setting
from shapes import SHAPES, write_model
from tables import Comparison, table


class Gain(NamedTuple):
    """What a plan takes off a prompt of so many tokens, ms: foretold and measured.

    scatter  what equal servers are apart; None: no two were measured
    """

    setting: Setting
    configuration: str
    tokens: int
    foretold: float
    measured: float
    scatter: float | None

    @property
    def is_seen(self) -> bool:
        """True where the measured gain is more than scatter."""
        return self.scatter is not None and abs(self.measured) > self.scatter


def gains(path: Path, sets: Sequence[str] = (), least: int = 1) -> Iterator[Gain]:
    """Of all plans that stood beside an unmodified server, by setting, configuration and tokens, `least` and more."""
    kept = Kept.read(path)
    for setting in kept.settings():
        own = kept.of(setting)
        at = {key: Comparison(own, key) for key in own.keys("ttft") if key.size >= least}
        for name, configuration in CONFIGURATIONS.items():
            if configuration.plan is None:
                continue
            for key, comparison in at.items():
                measured = comparison.saved(name)
                if measured is not None:
                    apart = [comparison.beside_itself(), comparison.from_start_to_start()]
                    scatter = max((ms for ms in apart if ms is not None), default=None)
                    yield Gain(setting, name, key.size, foretold_ms(setting, name, key, sets), measured, scatter)


def foretold_ms(setting: Setting, name: str, key: Key, sets: Sequence[str]) -> float:
    """By how much the plan of a configuration is shorter than the stock server, at one count."""
    import commplan

    shape = SHAPES[setting.shape]
    span = f"modes.prefill.tokens=[{key.size},{key.size}]"
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(setting.shape, setting.layers, Path(folder))
        slow = setting.links != "as they are"
        given = overrides(name, model, shape.overrides, slow, ["modes.prefill.launch=graph", span, *sets])
        (planned,) = commplan.plan(shape.deployment, set=given).strategy.modes["prefill"]
    assert planned.predicted is not None and planned.predicted.stock_us is not None
    return (planned.predicted.stock_us - planned.predicted.step_us) / 1e3


def pages(found: Iterable[Gain], markdown: bool) -> Iterator[str]:
    """A table for each setting, and what all of them come to."""
    by_setting: dict[Setting, list[Gain]] = {}
    for gain in found:
        by_setting.setdefault(gain.setting, []).append(gain)
    for setting, of in by_setting.items():
        tokens = sorted({gain.tokens for gain in of})
        lines = [["foretold / measured, ms", *map(str, tokens)]]
        for name in dict.fromkeys(gain.configuration for gain in of):
            at = {gain.tokens: gain for gain in of if gain.configuration == name}
            lines.append([f"{name}: {CONFIGURATIONS[name].what}", *(_cell(at.get(count)) for count in tokens)])
        yield f"{'## ' if markdown else '== '}{setting}"
        yield table(lines, markdown)
        yield _in_all(of)


def _in_all(gains: Sequence[Gain]) -> str:
    if all(gain.scatter is None for gain in gains):
        return "No two equal servers were measured, so that nothing tells scatter from a gain."
    ratios = sorted(gain.foretold / gain.measured for gain in gains if gain.is_seen and gain.measured > 0)
    if not ratios:
        return "No gain is beyond the scatter."
    spread = (
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} times as much was foretold, {statistics.median(ratios):.2f} at the median"
    )
    return f"Of {len(ratios)} gains beyond the scatter {spread}."


def _cell(gain: Gain | None) -> str:
    if gain is None:
        return "-"
    text = f"{gain.foretold:.1f} / {gain.measured:.1f}"
    return text if gain.is_seen or gain.scatter is None else f"({text})"


def main() -> None:
    """Print the tables."""
    assert __doc__ is not None
    first, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=f"{first}\n\n{rest}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+", help="files of rows that sglang.py has kept")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for all plans")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    found = [gain for path in options.rows for gain in gains(path, options.set)]
    if options.markdown:
        names = " ".join(path.name for path in options.rows)
        print(f"<!-- By: python benchmarks/servers/foretold.py {names} --markdown -->\n")
        print("# What plans save in an SGLang server, foretold and measured\n")
    print("\n\n".join(pages(found, options.markdown)))


if __name__ == "__main__":
    main()
