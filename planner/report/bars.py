"""Where the time goes: the parts of a step that a choice changes, stacked per strategy."""

from __future__ import annotations

from ..strategies import PLAIN
from ..what_if.evaluation import PLAN, Evaluation
from .bar_plot import Bar, BarPlot
from .chart import Chart, Key, milliseconds
from .palette import AREA, PART_COLOURS, PART_NAMES, on_card
from .study import Study
from .table import Cell, Table


def cost_chart(study: Study, mode: str, tokens: int) -> Chart:
    """Stacked bars at one token count, the plan on top; the compute that no choice changes is left out and stated."""
    found = study.at(mode, tokens)
    names = [PLAN, *sorted((n for n in found.plans if n != PLAN), key=lambda n: (found.plans[n].parts.step_us, n))]
    parts = [p for p in PART_COLOURS if any(found.plans[n].parts.parts[p] for n in names)]
    bars = [
        Bar(
            name,
            f"step {milliseconds(found.plans[name].parts.step_us)}",
            [found.plans[name].parts.parts[part] / 1000 for part in parts],
        )
        for name in names
    ]
    keys = [Key(PART_NAMES[part], on_card(PART_COLOURS[part], AREA)) for part in parts]
    plot = BarPlot(bars, keys, "ms of a step that the choice of communication changes")
    fixed = found.plans[PLAN].parts.parts["compute"]
    pushes = any(edge.op.is_pushed for edge, _ in found.plans[PLAN].plan.counted)
    pushed = " but where rows are pushed" if pushes else ""
    about = (
        f"{mode.capitalize()} of {tokens:,} tokens. {milliseconds(fixed)} of compute are the same under every choice "
        f"and left out of the bars. No overlap of communication and compute is assumed{pushed}."
    )
    return Chart(_finding(found, mode, tokens), about, plot, [_table(found, names, parts, mode, tokens)])


def _table(found: Evaluation, names: list[str], parts: list[str], mode: str, tokens: int) -> Table:
    shown = [*parts, "compute"]
    rows: list[list[str | Cell]] = [
        [name, milliseconds(found.plans[name].parts.step_us), *(_cell(found, name, part) for part in shown)]
        for name in names
    ]
    title = f"Parts of a {mode} step of {tokens:,} tokens, and what each rests on"
    return Table(title, ["strategy", "step", *(PART_NAMES[part] for part in shown)], rows)


def _cell(found: Evaluation, name: str, part: str) -> Cell:
    parts = found.plans[name].parts
    return Cell(milliseconds(parts.parts[part]), parts.provenances.get(part, "nothing runs"))


def _finding(found: Evaluation, mode: str, tokens: int) -> str:
    before, after = found.plans[PLAIN].parts, found.plans[PLAN].parts
    saved = before.step_us - after.step_us
    where = f"At {tokens:,} tokens of {mode}"
    if saved < 0.002 * before.step_us:
        return f"{where} there is nothing to save: the plan costs what plain all-reduce costs"
    changes = {part: before.parts[part] - after.parts[part] for part in PART_COLOURS}
    gains = [(part, us) for part, us in sorted(changes.items(), key=lambda item: -item[1]) if us > 0.05 * saved][:2]
    losses = [(part, us) for part, us in sorted(changes.items(), key=lambda item: item[1]) if us < -0.05 * saved][:1]
    words = [f"{milliseconds(us)} of {PART_NAMES[part]}" for part, us in gains]
    paid = f", and pays {milliseconds(-losses[0][1])} of {PART_NAMES[losses[0][0]]}" if losses else ""
    return f"{where} the plan saves {milliseconds(saved)} a step: {' and '.join(words)}{paid}"
