"""The map of decisions: layers down, modes and token ranges across, one cell per boundary, coloured by op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.op_kinds import KINDS
from ..strategy.ops import Op
from ..what_if.evaluation import PLAN
from .chart import Chart
from .study import Range, Study

_GAP = None  # an empty column between ranges
_MOST_LABELLED = 41  # columns up to which each is named
_MOST_LEVEL = 11  # columns up to which their names fit side by side


def decision_chart(study: Study) -> Chart:
    """The map of the whole plan."""
    used = {op.name for op in _all_ops(study)}
    ops = [name for name, kind in KINDS.items() if name in used and not kind.is_none]
    columns = list(_columns(study))
    layers = list(range(study.setup.model.num_hidden_layers))
    rows = ["embed_out", "", *map(str, layers), " ", "head_in"]
    z = [[_cell(column, row, ops) for column in columns] for row in rows]
    text = [[_hover(column, row) for column in columns] for row in rows]
    scale: list[list[Any]] = []
    for index, name in enumerate(ops):
        scale += [[index / len(ops), KINDS[name].colour], [(index + 1) / len(ops), KINDS[name].colour]]
    heads = _heads(study, columns)
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "x": list(range(len(columns))),
            "y": list(range(len(rows))),
            "z": z,
            "text": text,
            "hovertemplate": "%{text}<extra></extra>",
            "hoverongaps": False,
            "colorscale": scale,
            "zmin": -0.5,
            "zmax": len(ops) - 0.5,
            "showscale": False,
            "xgap": 2,
            "ygap": 0.5 if len(rows) <= 100 else 0,
        }
    ]
    ticks = [0, *(2 + layer for layer in layers if layer % _every(len(layers)) == 0), len(rows) - 1]
    few = len(columns) <= _MOST_LABELLED
    layout = {
        "xaxis": {
            "tickvals": [i for i, column in enumerate(columns) if column] if few else [],
            "ticktext": [column[2] for column in columns if column] if few else [],
            "tickangle": 0 if len(columns) <= _MOST_LEVEL else -60,
            "range": [-0.6, len(columns) - 1.4],
            "showgrid": False,
            "ticks": "",
            "zeroline": False,
        },
        "yaxis": {
            "autorange": "reversed",
            "tickvals": ticks,
            "ticktext": [rows[tick] for tick in ticks],
            "showgrid": False,
            "zeroline": False,
            "ticks": "",
        },
        "annotations": heads,
        "margin": {"t": 64, "b": 30 if len(columns) <= _MOST_LEVEL else 56, "l": 78, "r": 12},
    }
    about = (
        "Each group of columns is a token range of a mode; its columns are attn_in, attn_out, mlp_in, mlp_out. An "
        "empty cell is a boundary where nothing runs. Hover for the op in full."
    )
    legend = [(name, KINDS[name].colour) for name in ops]
    return Chart(_finding(study), about, traces, layout, min(760, 190 + 7 * len(rows)), legend)


def _columns(study: Study) -> Iterator[tuple[str, Range, str] | None]:
    for mode, ranges in study.ranges.items():
        for span in ranges:
            for boundary in LAYER_BOUNDARIES:
                yield mode, span, boundary
            yield _GAP


def _op(column: tuple[str, Range, str] | None, row: str) -> Op | None:
    if column is None:
        return None
    _, span, boundary = column
    if row == "embed_out":
        return span.plan.embed_out.op
    if row == "head_in":
        return span.plan.head_in.op
    if not row.isdigit():
        return None
    return span.plan.layers[int(row)][LAYER_BOUNDARIES.index(boundary)].op


def _cell(column: tuple[str, Range, str] | None, row: str, ops: list[str]) -> int | None:
    op = _op(column, row)
    return None if op is None or op.kind.is_none else ops.index(op.name)


def _hover(column: tuple[str, Range, str] | None, row: str) -> str:
    op = _op(column, row)
    if column is None or op is None:
        return ""
    mode, span, boundary = column
    where = f"layer {row} {boundary}" if row.isdigit() else row
    return f"{mode}, {span.first:,} to {span.last:,} tokens<br>{where}: <b>{op}</b>"


def _all_ops(study: Study) -> Iterator[Op]:
    for ranges in study.ranges.values():
        for span in ranges:
            yield from (edge.op for edge, _ in span.plan.counted)


def _heads(study: Study, columns: list[tuple[str, Range, str] | None]) -> list[dict[str, Any]]:
    width, heads, position = len(LAYER_BOUNDARIES) + 1, [], 0
    for mode, ranges in study.ranges.items():
        heads.append(_head(position - 0.5, f"<b>{mode}</b>", 40, "left"))
        for span in ranges:
            label = f"{span.first:,}" if span.first == span.last else f"{span.first:,}–{span.last:,}"
            if len(columns) > 60:  # many ranges: the first count says enough
                label = f"{span.first:,}"
            heads.append(_head(position - 0.5, label, 14, "left"))
            position += width
    return heads


def _head(x: float, text: str, shift: int, anchor: str) -> dict[str, Any]:
    size = {"size": 11, "color": "ink"}
    common = {"yref": "paper", "y": 1, "yanchor": "middle", "showarrow": False, "font": size}
    return {"x": x, "text": text, "yshift": shift, "xanchor": anchor, **common}


def _every(layers: int) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000, 10_000) if layers / step <= 20)


def _finding(study: Study) -> str:
    distinct = {tuple(str(edge.op) for edge in span.plan.edges) for ranges in study.ranges.values() for span in ranges}
    count = sum(len(ranges) for ranges in study.ranges.values())
    if len(distinct) == 1:
        return "One plan serves every mode and token count"
    spans = f"{count} token ranges of {len(study.ranges)} mode{'s' if len(study.ranges) > 1 else ''}"
    own = sum(_is_no_uniform(study, mode, span) for mode, ranges in study.ranges.items() for span in ranges)
    kind = f"; {own} of them {'is' if own == 1 else 'are'} what no single switch gives" if own else ""
    return f"{len(distinct)} different plans over {spans}{kind}"


def _is_no_uniform(study: Study, mode: str, span: Range) -> bool:
    """True where no uniform strategy does in every layer what the plan does."""
    mine = [edge.op for edge in span.plan.edges]
    found = study.at(mode, span.last)
    return not any([e.op for e in p.plan.edges] == mine for name, p in found.plans.items() if name != PLAN)
