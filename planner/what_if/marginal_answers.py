"""The marginal questions people ask of a deployment, answered at one mode and token count: for the page of a plan.

What if the link were half as fast? What does one more quantised boundary buy? Which TP size?
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import hypot, sqrt

from ..descriptions.loader import load_setup
from ..descriptions.setup import Setup
from ..fit.words import as_json, reason
from ..search.damage import ERROR_UNIT
from ..search.graph import Plan
from ..strategy.errors import CommplanError, NoLegalPlanError
from ..strategy.ops import Op, words_of
from .evaluation import NO_BUDGET, PLAN, Evaluation, Evaluator
from .fields import LINK_BANDWIDTH
from .memory import fewest_devices, fit_at, tp_sizes, with_tp
from .wire_formats import reached

_TP = "Which TP size?"
_FEWEST = "Fewest devices?"
_MORE = 1 + 1e-6  # a budget for k errors is a little more than their root of squares, for the rounding of integers


@dataclass(frozen=True)
class Answer:
    """A question with its answer, and the figures behind it."""

    question: str
    answer: str
    figures: list[dict[str, object]]


@dataclass(frozen=True)
class Asker:
    """Asks about one deployment at one mode and token count."""

    deployment: str
    overrides: tuple[str, ...]
    base: Setup
    mode: str
    tokens: int

    def answers(self) -> list[Answer]:
        """Every answer that this deployment has; none where it has no plan of its own."""
        found = []
        for ask in (self._link, self.quantised, self._tp, self.devices):
            try:
                answer = ask()
            except NoLegalPlanError:
                continue
            if answer is not None:
                found.append(answer)
        return found

    # ---- the link ---------------------------------------------------------------------------------------------------

    def _link(self) -> Answer | None:
        bandwidth = self.base.hardware.links.intra_node.bandwidth_gb_per_s.value
        if self.base.parallelism.tp == 1:
            return None
        now = Evaluator(self.base).at(self.mode, self.tokens)
        figures, words = [], []
        for factor, name in ((0.5, "half"), (2.0, "twice")):
            then = Evaluator(self._setup(f"{LINK_BANDWIDTH}={bandwidth * factor!r}")).at(self.mode, self.tokens)
            changed = _decisions(now.plans[PLAN].plan) != _decisions(then.plans[PLAN].plan)
            figures.append({"link_gb_per_s": bandwidth * factor, **_figures(then), "decisions_change": changed})
            step = then.plans[PLAN].parts.step_us / now.plans[PLAN].parts.step_us - 1
            gain = then.over_stock - now.over_stock
            words.append(
                f"{name} as fast: the plan's step {step:+.1%}, its gain over the stock server {gain * 100:+.1f} points"
                + (", and other ops are chosen" if changed else ", by the same ops")
            )
        return Answer("What if the link were half as fast, or twice?", "; ".join(words), figures)

    # ---- quantised sums ---------------------------------------------------------------------------------------------

    @property
    def _quantised_words(self) -> str:
        return words_of(self.base.executor.ops, self.base.deployment.numerics.wire_formats)

    @property
    def quantised_question(self) -> str:
        """As `quantised` puts it."""
        return f"What does one more {self._quantised_words} boundary buy?"

    def quantised(self) -> Answer | None:
        """What an error budget buys; None for an executor without quantised sums."""
        words, question = self._quantised_words, self.quantised_question
        if not words:
            return None
        try:
            now = self._planned()
            free = self._planned("numerics.loosest=quantized", *NO_BUDGET)
        except CommplanError:
            return None
        have, most = now[1].num_quantised, free[1].num_quantised
        if most == 0:
            return Answer(question, f"nothing: at {self.tokens} tokens no plan gains from {words}", [])
        if have >= most:
            all_of_them = f"all {have} boundaries that gain from {words} have it"
            return Answer(question, f"nothing more: {all_of_them}", [])
        allowed = self.base.deployment.numerics.perplexity_budget
        if allowed is not None:
            return self._twice(question, allowed, now, free)
        least = min(edge.squared_error for edge in free[1].edges if edge.squared_error > 0.0)
        budget = hypot(now[1].error, sqrt(least / ERROR_UNIT)) * _MORE
        try:
            more = self._planned("numerics.loosest=quantized", f"numerics.error_budget={budget!r}")
        except CommplanError:
            return None
        saved, whole = now[0] - more[0], now[0] - free[0]
        text = (
            f"{saved:,.1f} us a step ({saved / now[0]:.2%}) for an error budget of {budget:.4f}; "
            f"all {most} boundaries that gain: {whole:,.1f} us ({whole / now[0]:.2%})"
        )
        return Answer(question, text, _bought({"now": now, "one more": more, "all that gain": free}))

    def formats(self) -> Answer | None:
        """How far each wire format would bring a step; None where the executor quantises no sum here."""
        planner = Evaluator(self.base).planner(self.mode)
        whole, least, found = reached(planner, self.tokens)
        if not found:
            return None
        told = []
        for each in found:
            by = "per token" if each.group == "token" else f"per {each.group} columns"
            notes = ["a bound, offered by nothing"] if each.is_bound else []
            notes += [] if each.is_listed or each.is_bound else ["not in numerics.wire_formats"]
            told.append(
                f"{each.words} {by} {each.share:.0%} ({each.step_us / 1000:,.2f} ms"
                f"{''.join(f', {note}' for note in notes)})"
            )
        text = (
            f"of the {(whole - least) / 1000:,.2f} ms that all communication takes of plain all-reduce's "
            f"{whole / 1000:,.2f} ms: {'; '.join(told)}"
        )
        return Answer(
            "How far does each wire format bring it towards no communication?", text, [asdict(e) for e in found]
        )

    def _twice(self, question: str, allowed: float, now: tuple[float, Plan], free: tuple[float, Plan]) -> Answer | None:
        """What twice the perplexity budget buys."""
        try:
            more = self._planned(f"numerics.perplexity_budget={2 * allowed!r}")
        except CommplanError:
            return None
        saved, whole = now[0] - more[0], now[0] - free[0]
        text = (
            f"twice the rise of perplexity ({2 * allowed:.2%}) buys {more[1].num_quantised - now[1].num_quantised}: "
            f"{saved:,.1f} us a step ({saved / now[0]:.2%}); all {free[1].num_quantised} boundaries that gain: "
            f"{whole:,.1f} us ({whole / now[0]:.2%})"
        )
        return Answer(question, text, _bought({"now": now, "twice": more, "all that gain": free}))

    def _planned(self, *texts: str) -> tuple[float, Plan]:
        planner = Evaluator(self._setup(*texts)).planner(self.mode)
        plan = planner.best(self.tokens)
        return planner.step_us(plan, self.tokens), plan

    # ---- the TP size ------------------------------------------------------------------------------------------------

    def _tp(self) -> Answer | None:
        figures: list[dict[str, object]] = []
        steps: dict[int, float] = {}
        lacking = []
        for tp in tp_sizes(self.base):
            try:
                setup = self._setup(*with_tp(self.base, tp))
                found = Evaluator(setup).at(self.mode, self.tokens)
            except CommplanError as error:
                figures.append({"tp": tp, "legal": False, "reason": error.message})
                continue
            memory = fit_at(setup, self.mode, self.tokens, found)
            if not memory.fits:
                lacking.append(tp)
                figures.append({"tp": tp, "legal": False, "reason": reason(memory)})
                continue
            steps[tp] = found.plans[PLAN].parts.step_us
            left = {"kv_tokens_left": memory.kv_tokens_left}
            figures.append({"tp": tp, "legal": True, "reason": "", **_figures(found), **left})
        if not steps or len(steps) + len(lacking) < 2:
            return None
        verb = "does" if len(lacking) == 1 else "do"
        left_out = f"; TP {', '.join(map(str, lacking))} {verb} not fit" if lacking else ""
        if len(steps) == 1:
            return Answer(_TP, f"only TP {min(steps)} fits{left_out}", figures)
        fastest = min(steps, key=lambda tp: steps[tp])
        frugal = min(steps, key=lambda tp: tp * steps[tp])
        text = (
            f"TP {fastest} has the shortest step ({steps[fastest] / 1000:,.2f} ms), "
            f"TP {frugal} the most tokens per device{left_out}"
        )
        return Answer(_TP, text, figures)

    # ---- the fewest devices -----------------------------------------------------------------------------------------

    def devices(self) -> Answer | None:
        """The fewest devices of the machine that hold the deployment."""
        found = fewest_devices(self.base, self._setup)
        figures: list[dict[str, object]] = [
            {"devices": tp, "fits": False, "reason": why} for tp, why in found.lacking.items()
        ]
        if found.devices is None or found.memory is None:
            name, most = self.base.hardware.name, self.base.hardware.num_devices
            more = f"; weights fit from {found.at_least} devices of this memory on" if found.at_least else ""
            text = f"more than the {most} of {name}: at {max(found.lacking)}, {found.lacking[max(found.lacking)]}{more}"
            return Answer(_FEWEST, text, figures)
        memory = found.memory
        figures.append({"devices": found.devices, "devices_for_all": found.whole, **as_json(memory)})
        text = f"{found.devices}: room for {memory.kv_tokens_left:,} tokens of KV cache of a rank"
        for mode, most in memory.most_tokens.items():
            text += f", which ends {mode} at {most:,} tokens"
        if memory.most_tokens:
            text += f" (all of it fits {found.whole})" if found.whole else " (no size of this machine fits all of it)"
        if found.lacking:
            below = max(found.lacking)
            text += f"; at {below}, {found.lacking[below]}"
        return Answer(_FEWEST, text, figures)

    def _setup(self, *texts: str) -> Setup:
        return load_setup(self.deployment, (*self.overrides, *texts)) if texts else self.base


def _figures(found: Evaluation) -> dict[str, object]:
    parts = found.plans[PLAN].parts
    return {
        "step_us": parts.step_us,
        "communication_us": parts.communication_us,
        "over_stock": found.over_stock,
        "speed_up": found.speed_up(PLAN),
        "fastest_uniform": found.fastest_uniform,
    }


def _decisions(plan: Plan) -> tuple[Op, ...]:
    return tuple(edge.op for edge in plan.edges)


def _bought(found: dict[str, tuple[float, Plan]]) -> list[dict[str, object]]:
    """How many quantised boundaries each plan has, with its step and its error."""
    return [
        {"int8_boundaries": plan.num_quantised, "which": name, "step_us": step, "error": plan.error}
        for name, (step, plan) in found.items()
    ]
