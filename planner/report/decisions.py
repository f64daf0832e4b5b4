"""The map of decisions: a panel per mode and token range, layers down, boundaries across, coloured by op."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.op_kinds import KINDS
from ..strategy.ops import Op
from ..what_if.evaluation import PLAN
from .chart import Chart, Key
from .map_plot import Block, MapPlot, Panel
from .palette import AREA, on_card
from .study import Range, Study
from .table import Table

_BEFORE, _AFTER = "embed_out", "head_in"


def decision_chart(study: Study) -> Chart:
    """The map of the whole plan."""
    used = {op.name for op in _all_ops(study)}
    ops = [name for name, kind in KINDS.items() if name in used and not kind.is_none]
    rows: list[list[str]] = []
    panels = [_panel(mode, span, ops, rows) for mode, ranges in study.ranges.items() for span in ranges]
    keys = [Key(name, on_card(KINDS[name].colour, AREA)) for name in ops]
    layers = study.setup.model.num_hidden_layers
    about = (
        f"A panel for each mode and range of tokens; {layers} layers down, their boundaries across. An empty cell is a "
        "boundary where nothing runs."
    )
    table = Table("Ops by mode, tokens, layers and boundary", ["tokens", "layers", "boundary", "op"], rows, _WORDS)
    plot = MapPlot(panels, LAYER_BOUNDARIES, layers, _BEFORE, _AFTER, keys)
    return Chart(_finding(study), about, plot, [table])


_WORDS = frozenset(range(4))


def _panel(mode: str, span: Range, ops: list[str], rows: list[list[str]]) -> Panel:
    """The panel of a range; what it shows is added to the rows of the table."""
    tokens = f"{span.first:,}" if span.first == span.last else f"{span.first:,}–{span.last:,}"
    where = f"{mode} {tokens}"
    before = _single(span.plan.embed_out.op, _BEFORE, where, ops, rows)
    blocks: list[Block] = []
    for column, boundary in enumerate(LAYER_BOUNDARIES):
        for first, last, op in _runs([layer[column].op for layer in span.plan.layers]):
            if op.kind.is_none:
                continue
            blocks.append(Block(column, first, last, ops.index(op.name), len(rows)))
            rows.append([where, f"{first}" if first == last else f"{first}–{last}", boundary, str(op)])
    after = _single(span.plan.head_in.op, _AFTER, where, ops, rows)
    return Panel([mode, tokens], blocks, before, after)


def _single(op: Op, boundary: str, where: str, ops: list[str], rows: list[list[str]]) -> Block | None:
    """The block of a boundary that a forward has once."""
    if op.kind.is_none:
        return None
    rows.append([where, "–", boundary, str(op)])
    return Block(None, 0, 0, ops.index(op.name), len(rows) - 1)


def _runs(ops: Sequence[Op]) -> Iterator[tuple[int, int, Op]]:
    """First and last layer of each run of the same op."""
    for _, run in groupby(enumerate(ops), lambda item: str(item[1])):
        layers = list(run)
        yield layers[0][0], layers[-1][0], layers[0][1]


def _all_ops(study: Study) -> Iterator[Op]:
    for ranges in study.ranges.values():
        for span in ranges:
            yield from (edge.op for edge, _ in span.plan.counted)


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
