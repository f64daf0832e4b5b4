"""Where the time goes: the parts of a step that a choice changes, stacked per strategy."""

from __future__ import annotations

from ..strategies import PLAIN
from ..what_if.evaluation import PLAN, Evaluation
from .chart import Chart, axis, milliseconds
from .palette import PART_COLOURS, PART_NAMES
from .study import Study


def cost_chart(study: Study, mode: str, tokens: int) -> Chart:
    """Stacked bars at one token count, the plan on top; the compute that no choice changes is left out and stated."""
    found = study.at(mode, tokens)
    names = [PLAN, *sorted((n for n in found.plans if n != PLAN), key=lambda n: (found.plans[n].parts.step_us, n))][
        ::-1
    ]
    parts = [p for p in PART_COLOURS if any(found.plans[n].parts.parts[p] for n in names)]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": PART_NAMES[part],
            "y": names,
            "x": [found.plans[n].parts.parts[part] / 1000 for n in names],
            "text": [_hover(found, n, part) for n in names],
            "textposition": "none",
            "hovertemplate": f"{PART_NAMES[part]} of %{{y}}: %{{text}}<extra></extra>",
            "marker": {"color": PART_COLOURS[part], "line": {"width": 0}},
        }
        for part in parts
    ]
    fixed = found.plans[PLAN].parts.parts["compute"]
    widest = max(sum(found.plans[n].parts.parts[p] for p in parts) for n in names) / 1000
    layout = {
        "barmode": "stack",
        "bargap": 0.42,
        "xaxis": axis("ms of a step that the choice of communication changes", range=[0, widest * 1.2], zeroline=False),
        "yaxis": {"showgrid": False, "ticks": ""},
        "margin": {"t": 12, "r": 30, "b": 48, "l": 18 + 7 * max(map(len, names))},
        "annotations": [
            {
                "x": sum(found.plans[n].parts.parts[p] for p in parts) / 1000,
                "y": n,
                "text": f"step {milliseconds(found.plans[n].parts.step_us)}",
                "showarrow": False,
                "xanchor": "left",
                "xshift": 8,
                "font": {"size": 12, "color": "ink" if n == PLAN else "muted"},
            }
            for n in names
        ],
    }
    about = (
        f"{mode.capitalize()} of {tokens:,} tokens. {milliseconds(fixed)} of compute are the same under every choice "
        "and left out of the bars. No overlap of communication and compute is assumed."
    )
    legend = [(PART_NAMES[part], PART_COLOURS[part]) for part in parts]
    return Chart(_finding(found, mode, tokens), about, list(traces), layout, 130 + 52 * len(names), legend)


def _hover(found: Evaluation, name: str, part: str) -> str:
    parts = found.plans[name].parts
    return f"{milliseconds(parts.parts[part])}, {parts.provenances.get(part, 'nothing runs')}"


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
