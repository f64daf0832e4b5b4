"""Why this op here, and what would the others cost?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from commplan.planner.answers.asked import Asked, asked_of
from commplan.planner.answers.explanation import Explainer, Option
from commplan.planner.answers.explanation import Explanation as Details
from commplan.planner.answers.made_for import made_for
from commplan.planner.answers.spelled import duration, span
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.formats import warnings
from commplan.planner.search.graph import Plan as GraphPlan
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError, NoLegalPlanError, did_you_mean
from commplan.planner.strategy.layout import FORWARD_BOUNDARIES
from commplan.planner.strategy.op_kinds import KINDS

from ._asking import OnNote, Overrides, Path, count_of, in_python, layer_of, name_of, override_texts

if TYPE_CHECKING:
    from ._plan import Plan


@dataclass(frozen=True, repr=False)
class Explanation:
    """The chosen op and every other one, at one boundary of one forward.

    first, last  the range that the choice serves
    details      all that `commplan explain` prints
    notes        what reading did that should be known, and where a file is not what it was made for
    """

    setup: Setup
    details: Details
    first: int
    last: int
    notes: tuple[str, ...]

    @property
    def chosen(self) -> Option:
        """The op of the plan."""
        return self.details.chosen

    @property
    def alternatives(self) -> tuple[Option, ...]:
        """Every other op that is offered here, with what it would cost or why it may not stand; the fastest first."""
        return tuple(self.details.alternatives)

    @property
    def place(self) -> str:
        """`layer 12 attn_out`, or a boundary of the whole forward."""
        layer, boundary = self.details.layer, self.details.boundary
        return boundary if layer is None else f"layer {layer} {boundary}"

    def to_records(self) -> list[dict[str, Any]]:
        """A row for each op, the chosen one first; times are None for what no plan can have here."""
        chosen, d = self.chosen, self.details
        where = {"mode": d.mode, "tokens": d.tokens, "layer": d.layer, "boundary": d.boundary}
        columns = chosen.breakdown
        return [
            where
            | {"op": str(each.op), "impl": each.impl, "numerics": each.numerics, "chosen": each is chosen}
            | {"legal": each.legal, "reason": each.reason, "time_us": each.time_us}
            | {column: each.breakdown.get(column) for column in columns}
            | {"step_us": each.step_us, "slower_by_us": each.slower_by_us, "source": each.source or None}
            for each in (chosen, *self.alternatives)
        ]

    def __repr__(self) -> str:
        step = "" if self.chosen.step_us is None else f" in a step of {duration(self.chosen.step_us)}"
        return f"<commplan.Explanation {self._title()}: {self.chosen.op}{step}, beside {len(self.alternatives)} others>"

    def _title(self) -> str:
        d = self.details
        return f"{self.setup.deployment.name}: {d.mode}, {d.tokens} tokens, {self.place}"

    def _repr_html_(self) -> str:
        from ._table import html_table

        rows = [
            (str(o.op), o.impl, o.numerics, o.time_us, o.slower_by_us, "" if o.legal else "no", o.reason)
            for o in (self.chosen, *self.alternatives)
        ]
        columns = ("op", "impl", "numerics", "us here", "slower by, us a step", "allowed", "")
        return html_table(f"{self._title()}: {self.chosen.op} for {span(self.first, self.last)}", columns, rows)


@dataclass(frozen=True)
class Place:
    """What is asked about in a forward; what is not named is what a deployment has in the first place."""

    layer: int | None
    boundary: str
    op: str | None

    def explained(self, asked: Asked, mode: str | None, tokens: int | None) -> Explanation:
        """Of what would be planned, or of what a strategy file has."""
        mode, count = asked.forward(mode, None if tokens is None else count_of(tokens))
        planner = ModePlanner(asked.setup, mode)
        try:
            plan, served, otherwise = asked.chosen(planner, count)
        except NoLegalPlanError as error:
            raise asked.setup.in_its_file(error) from None
        notes = (*asked.setup.notes, *warnings(asked.setup), *asked.notes, *otherwise)
        return self.explained_of(asked.setup, planner, plan, count, served, bool(otherwise), notes)

    def explained_of(
        self,
        setup: Setup,
        planner: ModePlanner,
        plan: GraphPlan,
        tokens: int,
        served: tuple[int, int],
        edited: bool,
        notes: tuple[str, ...],
    ) -> Explanation:
        """Of a plan that is there."""
        layer = layer_of(self.layer)
        if layer is None and self.boundary not in FORWARD_BOUNDARIES:
            layer = setup.model.num_hidden_layers // 2
        details = Explainer(planner, tokens, plan, edited, served).explain(self.boundary, layer)
        if self.op is not None:
            if self.op not in KINDS:
                raise InputError(f"no such op; {did_you_mean(self.op, KINDS)}", field="--op", value=self.op)
            details = replace(details, alternatives=[o for o in details.alternatives if o.op.name == self.op])
        return Explanation(setup, details, *served, notes)


@in_python
def explain(
    deployment: Path | None = None,
    *,
    mode: str | None = None,
    tokens: int | None = None,
    layer: int | None = None,
    boundary: str = "attn_out",
    op: str | None = None,
    strategy: Path | Plan | None = None,
    set: Overrides | None = None,
    on_note: OnNote | None = None,
) -> Explanation:
    """Why an op was chosen at a boundary of a deployment, and what every other one would cost.

    deployment    a preset or a path; a strategy file that names a preset needs none
    mode, tokens  the forward: by default the first mode, at its largest token count
    layer         by default the middle one; none for embed_out and head_in
    op            this one alone beside the chosen one, as in "int8_all_reduce"
    strategy      explain the choices of this plan or strategy file, instead of a new plan's
    set           fields of the deployment to override, as in {"parallelism.tp": 4}

    An alternative is judged by the chosen plan with this one op exchanged, and the fewest changes that layouts demand.
    """
    from ._plan import Plan

    name, texts = None if deployment is None else name_of(deployment), override_texts(set)
    if isinstance(strategy, Plan):
        made = made_for(strategy.strategy, repr(strategy), name, texts, "as the deployment")
        asked = Asked(made.setup, repr(strategy), strategy.strategy, tuple(made.notes), made.why_not_told)
    else:
        asked = asked_of(name, None if strategy is None else name_of(strategy), texts)
    found = Place(layer, boundary, op).explained(asked, mode, tokens)
    if on_note is not None:
        for note in found.notes:
            on_note(note)
    return found
