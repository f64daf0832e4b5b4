"""A plan: made of a deployment, or read from its strategy file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from commplan.planner.answers.spelled import duration, span, times
from commplan.planner.strategy.errors import InputError, NoLegalPlanError, did_you_mean
from commplan.planner.strategy.file import Predicted, RangePlan, StrategyFile, dump, places, plan_hash
from commplan.planner.strategy.file import load as load_file
from commplan.planner.strategy.file import save as save_file

from ._asking import OnNote, Overrides, Path, count_of, in_python, name_of, override_texts, read, whole

if TYPE_CHECKING:
    from commplan.planner.backtest.trust import Trust
    from commplan.planner.descriptions.setup import Setup
    from commplan.planner.fit.verdict import Fit

    from ._explain import Explanation
    from ._prices import Prices


@dataclass(frozen=True, repr=False)
class Range:
    """What a plan does in one forward mode for token counts from `first` to `last`."""

    mode: str
    first: int
    last: int
    ops: RangePlan
    _plan: Plan

    @property
    def predicted(self) -> Predicted | None:
        """What the planner expected at the last token count; None in a file that does not say."""
        return self.ops.predicted

    @property
    def step_us(self) -> float | None:
        """Time of a step at the last token count."""
        return None if self.predicted is None else self.predicted.step_us

    @property
    def gain(self) -> float | None:
        """The stock server's step over the plan's, at the last token count; None where a file does not say."""
        known = self.predicted
        return None if known is None or known.stock_us is None else known.stock_us / known.step_us

    @property
    def summary(self) -> str:
        """The ops of most layers, and how many layers differ."""
        from commplan.planner.answers.describe import layer_summary

        return layer_summary(self.ops)

    @cached_property
    def trust(self) -> Trust:
        """How far the gain over the stock server can be trusted."""
        from commplan.planner.backtest.plan_trust import trust_over_stock

        plan = self._plan
        planner, chosen, stock = plan._priced().of(self.mode, self.last)
        return trust_over_stock(planner, stock, chosen, self.last, fits=plan.fits)

    @in_python
    def at(self, boundary: str, layer: int | None = None) -> str:
        """The op at a boundary: of a layer, or of the whole forward (embed_out, head_in)."""
        found = {(place[0], place[1]): str(place[2]) for place in places(self.ops)}
        where = (None if layer is None else whole(layer, "layer", 0, len(self.ops.layers) - 1), boundary)
        if where in found:
            return found[where]
        known = dict.fromkeys(name for number, name in found if (number is None) == (layer is None))
        which = "belongs to no layer" if layer is None else f"belongs to layer {layer}"
        raise InputError(
            f"no boundary of this name {which}; {did_you_mean(boundary, known)}", field="boundary", value=boundary
        )

    def to_records(self) -> list[dict[str, Any]]:
        """A row for each boundary of each layer; `layer` is None for embed_out and head_in."""
        where = {"mode": self.mode, "first": self.first, "last": self.last}
        return [
            where
            | {"layer": layer, "boundary": boundary, "op": op.name, "algorithm": op.algorithm, "group": op.group}
            | {"residual": op.residual, "impl": op.impl, "wire": op.wire_name, "scale_group": op.scale_group}
            | {"pieces": op.pieces}
            for layer, boundary, op in places(self.ops)
        ]

    def __repr__(self) -> str:
        return f"<commplan.Range {self.mode} {span(self.first, self.last)}: {_time(self)}{self.summary}>"

    def _repr_html_(self) -> str:
        from ._table import html_table

        rows = [tuple(row.values())[3:] for row in self.to_records()]
        columns = ("layer", "boundary", "op", "algorithm", "group", "residual", "impl", "wire", "scale_group", "pieces")
        return html_table(f"{self.mode} {span(self.first, self.last)}: {_time(self)}{self.summary}", columns, rows)


def _time(chosen: Range) -> str:
    """`63.64 ms, 1.077x over the stock server; `, as far as it is known."""
    if chosen.step_us is None:
        return ""
    gain = "" if chosen.gain is None else f", {chosen.gain:.3f}x over the stock server"
    return f"{duration(chosen.step_us)}{gain}; "


class Plan:
    """How partial sums travel in a deployment: for each forward mode, ranges of token counts with their ops.

    What a strategy file holds (`modes`, `at`, `to_records`, `save`) every plan can say. What depends on the machine
    (`step_us` at any token count, `memory`, `explain`) needs the deployment, which a plan by `plan` has, and one by
    `load` where what its file was made for is a preset and has not changed, or was named.
    """

    def __init__(self, strategy: StrategyFile, prices: Prices | None = None, file: str | None = None) -> None:
        self.strategy = strategy
        self._prices = prices
        self._file = file

    # ---- what a file holds ------------------------------------------------------------------------------------------

    @property
    def deployment(self) -> str:
        """Name of the deployment that it was made for."""
        return self.strategy.deployment.name

    @property
    def modes(self) -> tuple[str, ...]:
        """Forward modes that are planned."""
        return tuple(self.strategy.modes)

    @property
    def hash(self) -> str:
        """16 hex digits: equal where the same ops would run for the same model, machine and deployment."""
        return plan_hash(self.strategy)

    @in_python
    def ranges(self, mode: str | None = None) -> tuple[Range, ...]:
        """The ranges of a mode in order; of all modes, if none is named."""
        names = self.modes if mode is None else (self._mode(mode),)
        return tuple(Range(n, r.first, r.last, r, self) for n in names for r in self.strategy.modes[n])

    @in_python
    def at(self, mode: str, tokens: int) -> Range:
        """The range that holds a token count."""
        return self._at(mode, tokens)

    def to_records(self) -> list[dict[str, Any]]:
        """A row for each range of each mode; times are at its last token count."""
        return [_record(each) for each in self.ranges()]

    def text(self) -> str:
        """The strategy file as text."""
        return dump(self.strategy)

    @in_python
    def save(self, path: Path) -> None:
        """Write the strategy file, whole or not at all."""
        save_file(self.strategy, name_of(path))

    def _mode(self, mode: str) -> str:
        if mode not in self.strategy.modes:
            hint = did_you_mean(mode, self.modes)
            raise InputError(f"the plan has no such mode; {hint}", file=self._file, field="--mode", value=mode)
        return mode

    def _at(self, mode: str, tokens: int) -> Range:
        count, ranges = count_of(tokens), self.ranges(self._mode(mode))
        for found in ranges:
            if found.first <= count <= found.last:
                return found
        planned = f"{mode} is planned for {ranges[0].first} to {ranges[-1].last} tokens"
        raise InputError(planned, file=self._file, field="--tokens", value=tokens)

    # ---- what depends on the machine --------------------------------------------------------------------------------

    @property
    def setup(self) -> Setup:
        """The deployment and all that it names, as they were read."""
        return self._priced().setup

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading the descriptions did that should be known, which of their formats do nothing, and where they are
        not what a file was made for."""
        if self._prices is None:
            return ()
        from commplan.planner.answers.unverified import unverified
        from commplan.planner.search.formats import warnings

        setup = self._prices.setup
        found = (*warnings(setup), *self._prices.notes, *unverified(self.strategy, setup.impls))
        return (*setup.notes, *found, *self._prices.beyond_tables())

    @cached_property
    def fit(self) -> Fit:
        """The deployment against the memory of a device."""
        from commplan.planner.fit.peaks import peak_of
        from commplan.planner.fit.verdict import fit

        setup = self._priced().setup
        return fit(setup, peak=peak_of(setup, self.strategy))

    @property
    def fits(self) -> bool:
        """True where the devices have the memory for what the deployment asks."""
        return self.fit.fits

    @property
    def memory(self) -> dict[str, object]:
        """GB of a rank by part, room for the KV cache, and what would make it fit: `memory` of `plan --json`."""
        from commplan.planner.fit.words import as_json, ways_out

        return as_json(self.fit) | {"ways_out": [] if self.fits else list(ways_out(self.setup, self.fit))}

    @in_python
    def step_us(self, mode: str, tokens: int) -> float:
        """Time of a step at a token count, by the ops that the plan has there."""
        count, found = count_of(tokens), self._at(mode, tokens)
        known = found.predicted
        if self._prices is None and known is not None and known.tokens == count:
            return known.step_us
        planner, chosen, _ = self._priced().of(mode, count)
        return planner.step_us(chosen, count)

    @in_python
    def explain(
        self,
        *,
        mode: str | None = None,
        tokens: int | None = None,
        layer: int | None = None,
        boundary: str = "attn_out",
        op: str | None = None,
    ) -> Explanation:
        """Why an op stands where it stands in this plan, and what every other one would cost."""
        from ._explain import Place

        mode = self.modes[0] if mode is None else mode
        held = self.ranges(mode)[-1] if tokens is None else self._at(mode, tokens)
        count = held.last if tokens is None else count_of(tokens)
        prices = self._priced()
        planner, chosen, _ = prices.of(mode, count)
        edited = prices.told_otherwise(mode, held.ops)
        notes = (*self.notes, *([edited] if edited else []))
        return Place(layer, boundary, op).explained_of(
            prices.setup, planner, chosen, count, (held.first, held.last), bool(edited), notes
        )

    def _priced(self) -> Prices:
        """A file is priced for what it was made for, where that is a preset and has not changed."""
        if self._prices is None:
            from ._prices import prices_of

            self._prices = prices_of(self.strategy, self._file or "", as_it_was=True)
        return self._prices

    # ---- at a glance ------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        ranges = ", ".join(
            f"{mode} to {found[-1].last} tokens in {len(found)} range{'s' * (len(found) != 1)}"
            for mode, found in self.strategy.modes.items()
        )
        return f"<commplan.Plan {self._title()}; {ranges}>"

    def _title(self) -> str:
        made = self.strategy
        lacks = "" if self._prices is None or self.fits else ", does not fit"
        on = f"{made.model.name} on {made.hardware.name}, TP {made.parallelism.tp}, {made.executor}"
        return f"{made.deployment.name}: {on}{lacks}"

    def _repr_html_(self) -> str:
        from ._table import html_table

        columns = ("mode", "tokens", "step", "vs stock", "vs its best flag", "vs library", "ops")
        note = "Gains are steps over the plan's, at the last token count of each range."
        return html_table(self._title(), columns, list(_rows(self.ranges())), note)


def _rows(ranges: tuple[Range, ...]) -> Iterator[tuple[object, ...]]:
    for each in ranges:
        known, where = each.predicted, (each.mode, span(each.first, each.last))
        if known is None:
            yield (*where, None, None, None, None, each.summary)
            continue
        step, flag = known.step_us, known.best_stock_flag
        over_flag = f"{times(flag[1], step)} {flag[0]}" if flag is not None and known.flag_helps else None
        gains = (times(known.stock_us, step), over_flag, times(known.library_us, step))
        yield (*where, duration(step), *gains, each.summary)


def _record(each: Range) -> dict[str, Any]:
    known = each.predicted
    flag, best = (None, None) if known is None else (known.best_stock_flag, known.best_uniform)
    return {
        "mode": each.mode,
        "first": each.first,
        "last": each.last,
        "step_us": each.step_us,
        "gain": each.gain,
        "stock_us": known and known.stock_us,
        "stock_source": known and known.stock_source,
        "best_stock_flag": flag and flag[0],
        "best_stock_flag_us": flag and flag[1],
        "library_us": known and known.library_us,
        "all_reduce_us": known and known.all_reduce_us,
        "best_uniform": best and best[0],
        "best_uniform_us": best and best[1],
        "worst_loss": known and known.worst_loss,
        "host_wait_us": known and known.host_wait_us,
        "source": known and known.source,
        "ops": each.summary,
    }


@in_python
def plan(
    deployment: Path, *, set: Overrides | None = None, require_fit: bool = False, on_note: OnNote | None = None
) -> Plan:
    """Find the cheapest legal plan of a deployment, a preset or a path.

    set          fields to override, as in {"parallelism.tp": 4}; `hardware.` and `model.` reach into those files
    require_fit  raise DoesNotFitError where the devices have no memory for it
    on_note      called with what reading the descriptions did; the plan has it as `notes`
    """
    from commplan.planner.answers.to_file import Chosen, plan_setup
    from commplan.planner.fit.words import does_not_fit

    from ._prices import Prices

    setup, chosen = read(deployment, set, on_note), Chosen()
    try:
        strategy = plan_setup(setup, chosen)
    except NoLegalPlanError as error:
        raise setup.in_its_file(error) from None
    found = Plan(strategy, Prices(setup, strategy, setup.file, chosen))
    if require_fit and not found.fits:
        raise does_not_fit(setup, found.fit)
    return found


@in_python
def load(
    path: Path, *, deployment: Path | None = None, set: Overrides | None = None, on_note: OnNote | None = None
) -> Plan:
    """Read a strategy file and check it; InputError says what is wrong with it.

    deployment  what it was made for, where that is no preset or has changed: what depends on the machine is asked of it
    set         what that deployment has otherwise than the file says; it knows its executor and overrides
    """
    name = name_of(path)
    strategy = load_file(name)
    if deployment is None and set is None:
        return Plan(strategy, None, name)
    from ._prices import prices_of

    prices = prices_of(strategy, name, None if deployment is None else name_of(deployment), override_texts(set))
    prices.check()
    found = Plan(strategy, prices, name)
    if on_note is not None:
        for note in found.notes:
            on_note(note)
    return found
