"""Why this op here, and what would the others cost?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from commplan.planner.answers.explanation import Explainer, Option
from commplan.planner.answers.explanation import Explanation as Details
from commplan.planner.answers.spelled import duration, span
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.graph import Plan as GraphPlan
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError, NoLegalPlanError, did_you_mean
from commplan.planner.strategy.layout import FORWARD_BOUNDARIES
from commplan.planner.strategy.op_kinds import KINDS

from ._asking import OnNote, Overrides, Path, count_of, in_python, layer_of, mode_of, name_of, read

if TYPE_CHECKING:
    from commplan.planner.strategy.file import StrategyFile

    from ._plan import Plan
    from ._prices import Prices


@dataclass(frozen=True, repr=False)
class Explanation:
    """The chosen op and every other one, at one boundary of one forward.

    first, last  the range that the choice serves
    details      all that `commplan explain` prints
    """

    setup: Setup
    details: Details
    first: int
    last: int

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
class Question:
    """The place that is asked about; what is not named is what a deployment has in the first place."""

    setup: Setup
    mode: str | None
    tokens: int | None
    layer: int | None
    boundary: str
    op: str | None

    def asked_of(self, prices: Prices) -> Explanation:
        """The explanation of a plan that is there."""
        mode, tokens = self._forward()
        planner, plan, _ = prices.of(mode, tokens)
        held = prices.strategy.range_of(mode, tokens)
        return self._explained(planner, plan, (held.first, held.last), prices.from_file)

    def asked_anew(self) -> Explanation:
        """The explanation of what would be planned."""
        mode, tokens = self._forward()
        planner = ModePlanner(self.setup, mode)
        try:
            found = next(r for r in planner.ranges() if r.first <= tokens <= r.last)
        except NoLegalPlanError as error:
            raise error.in_file(self.setup.file) from None
        return self._explained(planner, found.plan, (found.first, found.last), False)

    def asked_of_file(self, file: str, strategy: StrategyFile | None = None) -> Explanation:
        """The explanation of what a strategy file has, which is read unless it is given."""
        from commplan.planner.answers.from_file import plan_of
        from commplan.planner.strategy.file import load

        mode, tokens = self._forward()
        planner = ModePlanner(self.setup, mode)
        strategy = strategy or load(file)
        try:
            plan, served = plan_of(planner, strategy, tokens, file)
        except NoLegalPlanError as error:
            raise error.in_file(self.setup.file) from None
        return self._explained(planner, plan, served, True)

    def _forward(self) -> tuple[str, int]:
        mode = mode_of(self.setup, self.mode)
        first, last = self.setup.deployment.modes[mode].tokens
        if self.tokens is None:
            return mode, last
        count = count_of(self.tokens)
        if not first <= count <= last:
            raise InputError(f"{mode} is planned for {first} to {last} tokens", field="--tokens", value=count)
        return mode, count

    def _explained(
        self, planner: ModePlanner, plan: GraphPlan, served: tuple[int, int], from_file: bool
    ) -> Explanation:
        layers = self.setup.model.num_hidden_layers
        layer = layer_of(self.layer)
        if layer is None and self.boundary not in FORWARD_BOUNDARIES:
            layer = layers // 2
        _, tokens = self._forward()
        details = Explainer(planner, tokens, plan, from_file).explain(self.boundary, layer)
        if self.op is not None:
            if self.op not in KINDS:
                raise InputError(f"no such op; {did_you_mean(self.op, KINDS)}", field="--op", value=self.op)
            details = replace(details, alternatives=[o for o in details.alternatives if o.op.name == self.op])
        return Explanation(self.setup, details, *served)


@in_python
def explain(
    deployment: Path,
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

    mode, tokens  the forward: by default the first mode, at its largest token count
    layer         by default the middle one; none for embed_out and head_in
    op            this one alone beside the chosen one, as in "int8_all_reduce"
    strategy      explain the choices of this plan or strategy file, instead of a new plan's
    set           fields of the deployment to override, as in {"parallelism.tp": 4}

    An alternative is judged by the chosen plan with this one op exchanged, and the fewest changes that layouts demand.
    """
    setup = read(deployment, set, on_note)
    asked = Question(setup, mode, tokens, layer, boundary, op)
    if strategy is None:
        return asked.asked_anew()
    from ._plan import Plan

    if isinstance(strategy, Plan):
        return asked.asked_of_file(repr(strategy), strategy.strategy)
    return asked.asked_of_file(name_of(strategy))
