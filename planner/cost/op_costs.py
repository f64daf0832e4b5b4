"""What an op costs at a boundary: prices of its terms, and the token counts at which they change.

An op's cost is a bag of Terms that do not depend on the token count; a Term is priced once per token count however many
ops share it. That keeps a search over many token counts cheap.
"""

from __future__ import annotations

from collections.abc import Callable

from ..descriptions.setup import Setup
from ..descriptions.weight_types import WeightFormat
from ..strategy.layout import LayerShape, State
from ..strategy.ops import Op
from ..strategy.words import QuantizablePart, RowRule
from .collectives import CollectiveCosts
from .composed import ComposedCosts
from .estimate import Estimate
from .hand_over import HandOverCosts
from .kernels import NOTHING, DeviceCosts
from .measured import MeasuredKernels
from .op_terms import OpTerms
from .terms import SCALED, Composed, Gemm, HandOver, OneKernel, Passes, Term, Unhidden, Wire
from .workload import Work, work_of


class OpCosts:
    """Prices of ops in one forward mode of a setup."""

    def __init__(self, setup: Setup, mode: str) -> None:
        self._setup, self._mode = setup, mode
        dtypes = setup.deployment.dtypes
        measured = MeasuredKernels(setup.calibrations)
        self.device = DeviceCosts(setup.hardware, setup.weights, dtypes.activations, measured)
        left = WeightFormat(dtypes.activations, None)
        self._unquantized = DeviceCosts(setup.hardware, left, dtypes.activations, measured)
        other = setup.weights.other
        self._other = DeviceCosts(setup.hardware, other, dtypes.activations, measured) if other else self.device
        self.collectives = CollectiveCosts(setup)
        self.composed = ComposedCosts(setup, self.collectives)
        self._terms = OpTerms(setup, self.device.activation_bytes)
        self._hand_overs = HandOverCosts(setup, self.collectives)
        self._p = setup.parallelism
        self._impls = setup.impls
        self._mode_spec = setup.deployment.modes[mode]
        self.compute_factor: Callable[[int], float] = _as_modelled

    def device_of(self, part: QuantizablePart) -> DeviceCosts:
        """Prices of GEMMs with the weights of this part of the model, which a checkpoint may have left unquantised, or
        quantised to another type."""
        weights = self._setup.weights
        if part in weights.unquantized:
            return self._unquantized
        return self._other if part in weights.other_parts else self.device

    def work(self, tokens: int) -> Work:
        """The shape of the work of this many tokens."""
        return work_of(self._mode, self._mode_spec, tokens)

    def terms(self, boundary: str, op: Op, before: State | None, after: State, shape: LayerShape) -> tuple[Term, ...]:
        """All parts of what `op` costs at `boundary`, between the states before and after it."""
        return self._terms.terms(boundary, op, before, after, shape)

    # ---- prices -----------------------------------------------------------------------------------------------------

    def estimate(self, term: Term, tokens: int) -> Estimate:
        """Price of a term at a token count."""
        found = self._modelled(term, tokens)
        return found.scaled(self.compute_factor(tokens)) if isinstance(term.work, SCALED) else found

    def _modelled(self, term: Term, tokens: int) -> Estimate:
        rows = self.rows(term.rows, tokens)
        if rows == 0:
            return NOTHING
        elements, work = rows * term.width, term.work
        if isinstance(work, Wire):
            message_bytes = elements * work.bytes_per_element
            return self.collectives.collective(work.op, work.impl, work.dtype, work.group, message_bytes)
        if isinstance(work, Passes):
            return self.device.passes(work.kernels, elements, work.group_size, term.width)
        if isinstance(work, Gemm):
            return self.device_of("attention").gemm(rows, term.width, work.columns)
        if isinstance(work, OneKernel):
            return self.collectives.one_kernel(work, rows, term.width)
        if isinstance(work, Composed):
            return self.composed.calls(work, rows, term.width)
        if isinstance(work, Unhidden):
            return self.composed.unhidden(work.around, rows, term.width)
        if isinstance(work, HandOver):
            return self._hand_overs.estimate(work, elements * work.bytes_per_element)
        mine = self.rows("dp_local", tokens) * term.width * self.device.activation_bytes
        return self.collectives.peer_to_peer(work.op, elements * self.device.activation_bytes, mine)

    def message_bytes(self, terms: tuple[Term, ...], tokens: int) -> float:
        """The largest buffer that goes through a collective of an op itself, or message of a composed sum."""
        return max(
            (
                self.rows(t.rows, tokens) * t.width * t.work.bytes_per_element
                for t in terms
                if isinstance(t.work, Wire | OneKernel | Composed) and t.category == "wire"
            ),
            default=0.0,
        )

    def most_bytes(self, op: Op, terms: tuple[Term, ...]) -> float | None:
        """The largest message that the impl of an op takes; None: any."""
        if op.impl is None:
            return None
        for term in terms:
            if isinstance(term.work, Composed):
                return self.composed.most_bytes(term.work, term.width)
        return self._impls[op.impl].max_message_bytes

    def lacks_table(self, terms: tuple[Term, ...]) -> bool:
        """True for an op by an impl that is used only where it was measured, and here it was not.

        Such is one without a formula, and one that reads its peers' memory where the link does not say that it can: a
        table shows that it could. A kernel of commplan's own with tables of other ops has none of a format: beside a
        table a formula would win or lose by its own error.
        """
        if any(isinstance(t.work, Composed) and self.composed.lacks_table(t.work, t.width) for t in terms):
            return True
        return any(
            isinstance(t.work, Wire | OneKernel)
            and t.category == "wire"
            and (
                self._impls[t.work.impl].needs_table or not self._may_reach(t.work.impl) or self._is_of_a_format(t.work)
            )
            and not self._table_sizes(t.work, t.width)
            for t in terms
        )

    def is_among_measured(self, terms: tuple[Term, ...]) -> bool:
        """False for a composed sum that was measured, but not by this algorithm in so many pieces."""
        works = (term.work for term in terms if isinstance(term.work, Composed))
        return all(self.composed.is_among_measured(work) for work in works)

    def _is_of_a_format(self, work: Wire | OneKernel) -> bool:
        named = isinstance(work, OneKernel) and work.wire is not None
        return named and self._impls[work.impl].is_own and self.collectives.is_measured(work.impl)

    def _may_reach(self, impl: str) -> bool:
        return not self._impls[impl].peer_access or self._setup.hardware.links.intra_node.has_peer_access

    def _table_sizes(self, work: Wire | OneKernel | Composed, width: int) -> tuple[float, ...]:
        if isinstance(work, Composed):
            return self.composed.sizes(work, width)
        if isinstance(work, OneKernel):
            return self.collectives.kernel_sizes(work, width)
        return self.collectives.table_sizes(work.op, work.impl, work.dtype, work.group)

    def rows(self, rule: RowRule, tokens: int) -> int:
        """Rows that a rule names, at a token count."""
        p = self._p
        if rule == "all":
            return tokens
        shard = -(-tokens // p.tp)
        if rule == "padded":
            return shard * p.tp
        if rule == "shard":
            return shard
        if rule == "dp_local":
            return shard * p.attn_tp
        if rule == "logits":
            return -(-self.work(tokens).logits // p.tp) * p.tp
        if tokens % p.tp == 0:
            return 0
        return shard if rule == "unaligned_shard" else tokens

    def kinks(self, term: Term) -> set[int]:
        """Token counts at which a term changes its slope or ends: knots of its table and limits of its impl."""
        work = term.work
        if not isinstance(work, Wire | OneKernel | Composed) or term.rows == "logits":
            return set()
        sizes = self._table_sizes(work, term.width)
        return self.limits(term) | {round(size / self._bytes_a_token(term, work)) for size in sizes}

    def limits(self, term: Term) -> set[int]:
        """The last token count whose message the impl of a term takes."""
        work = term.work
        if not isinstance(work, Wire | OneKernel | Composed) or term.rows == "logits":
            return set()
        most: float | None = self._impls[work.impl].max_message_bytes
        if isinstance(work, Composed):
            most = self.composed.most_bytes(work, term.width)
        return set() if most is None else {int(most / self._bytes_a_token(term, work))}

    def _bytes_a_token(self, term: Term, work: Wire | OneKernel | Composed) -> float:
        scale = self._p.attn_dp if term.rows == "dp_local" else 1
        return term.width * work.bytes_per_element / scale


def _as_modelled(tokens: int) -> float:  # noqa: ARG001
    """How much longer than modelled takes what is not communication, where no step was measured."""
    return 1.0
