"""What an op is made of at a boundary: its collectives, and the layout-dependent compute that its layouts bring.

A bag of Terms that do not depend on the token count; op_costs.py prices them.
"""

from __future__ import annotations

from ..descriptions.setup import Setup
from ..executors import Kernel, Kernels, Traffic
from ..strategy.layout import (
    DP_LOCAL,
    IN_BOUNDARIES,
    REPLICATED,
    TOKEN_SHARDED,
    LayerShape,
    Layout,
    State,
    group_of,
    is_finer,
    is_widened,
)
from ..strategy.op_kinds import ALL_GATHER
from ..strategy.op_record import Rows, Send, Step
from ..strategy.ops import Op
from ..strategy.wire import Part
from ..strategy.wire import Wire as WireFormat
from ..strategy.words import Category, GroupName, RowRule, StepRows
from .streams import mixing
from .terms import Composed, Gemm, HandOver, OneKernel, Passes, PeerKernel, Term, Unhidden, Wire

_FOLD = (Kernel(name="fold_residual", read=Traffic(message=4), write=Traffic(message=2)),)
_COPY = (Kernel(name="copy", read=Traffic(message=2), write=Traffic(message=2)),)
_ZERO_FILL = (Kernel(name="zero_fill", write=Traffic(message=2)),)


class OpTerms:
    """The terms of ops under one setup."""

    def __init__(self, setup: Setup, activation_bytes: float) -> None:
        self._setup, self._p, self._impls = setup, setup.parallelism, setup.impls
        self._backend = setup.hardware.backend
        self._dtype, self._element = setup.deployment.dtypes.activations, activation_bytes

    def terms(self, boundary: str, op: Op, before: State | None, after: State, shape: LayerShape) -> tuple[Term, ...]:
        """All parts of what `op` costs at `boundary`, between the states before and after it."""
        impl = op.impl or self._backend
        if boundary in IN_BOUNDARIES:
            assert before is not None
            return (*self._gather(boundary, op, impl, before, after, shape), *self._latent(boundary, op, shape))
        return (
            *self._sum(boundary, op, impl, before, shape),
            *(self._cut(before.residual, after.residual) if before is not None else ()),
            *self._add_and_norm(op, impl, before, after),
            *([self._hand_over(after.hidden)] if boundary == "mlp_out" and shape.ends_stage else ()),
        )

    def _hand_over(self, layout: Layout) -> Term:
        """Hidden and residual streams, which share their layout behind a sum, to the next pipeline stage."""
        group: GroupName | None = {REPLICATED: "tp", DP_LOCAL: "attn_tp", TOKEN_SHARDED: None}[layout]
        streams = 1 + self._setup.model.residual_streams
        work = HandOver(self._backend, self._dtype, group, self._element, streams=streams)
        return Term("wire", work.op, _rows_of(layout), self._hidden, work)

    def _sum(self, boundary: str, op: Op, impl: str, before: State | None, shape: LayerShape) -> list[Term]:
        if op.kind.is_none:
            return []
        p, kind = self._p, self._impls[impl].kind
        group = group_of(boundary, op, before, shape, p)
        everywhere = boundary == "mlp_out" or p.attn_dp == 1 or group == "tp"
        rows: RowRule = "all" if everywhere else "dp_local"
        padded: RowRule = "padded" if everywhere else "dp_local"
        zero = [self._kernels("padding", _ZERO_FILL, "all"), self._kernels("padding", _COPY, "dp_local")]
        after = zero if is_widened(boundary, op, p) else []
        if kind == "one_kernel":  # takes any number of rows, so nothing is copied to pad
            whole = rows if p.attn_dp == 1 or op.kind.rows is Rows.SUMMED else padded
            return [self._one_kernel(op, impl, group, whole), *after]
        if kind == "composed":  # quantising writes into a message of whole shards, so nothing is copied to pad here too
            whole = rows if op.way.keeps_rows or p.attn_dp > 1 else padded
            return [*self._composed(op, impl, group, whole), *after]
        terms = [self._pad_copy()] if p.attn_dp == 1 and any(map(_pads, op.way.sends)) else []
        if kind == "peer_to_peer":
            return [*terms, Term("wire", op.name, "padded", self._hidden, PeerKernel(op.name))]
        by_rule: dict[StepRows, RowRule] = {
            "message": rows,
            "padded": padded,
            "dp_local": "padded" if p.attn_dp == 1 else "dp_local",
        }
        return [*terms, *(self._step(op, step, impl, group, by_rule[step.rows]) for step in op.way.steps), *after]

    def _step(self, op: Op, step: Step, impl: str, group: GroupName, rows: RowRule) -> Term:
        """One step of an op by a library."""
        size = self._p.group_size(group)
        if isinstance(step, Send):
            over = self._p.canonical_group(step.over) if step.over else group
            wire = None if step.part == "activations" else op.wire
            return self._wire(step.by.name, impl, over, rows, step.part, wire, times=size if step.whole else 1)
        kernels = self._setup.executor.kernels_of(step.step, impl, op.wire)
        return self._kernels("quantize", kernels, rows, size if step.copies else 1)

    def _add_and_norm(self, op: Op, impl: str, before: State | None, after: State) -> list[Term]:
        kernels = self._setup.executor.kernels_of
        rows, fused = _rows_of(after.hidden), self._impls[impl].fuses_norm
        if before is None:
            return [
                *mixing(self._setup.model, rows, has_residual=False),
                self._kernels("norm", kernels("norm", self._backend), rows),
            ]
        terms = []
        if op.residual == "fold":
            terms.append(self._kernels("residual", _FOLD, _rows_of(before.residual)))
            return terms if fused else [*terms, self._kernels("norm", kernels("norm", self._backend), rows)]
        if op.residual == "gather":
            group, gathered = self._residual_gather(before.residual, after.hidden)
            library = impl if self._impls[impl].kind == "library" else self._backend
            width = self._hidden * self._setup.model.residual_streams
            wire = self._wire(ALL_GATHER.name, library, group, gathered, width=width)
            terms.append(wire._replace(category="residual"))
        if mixed := mixing(self._setup.model, rows, has_residual=True):
            return [*terms, *mixed, self._kernels("norm", kernels("norm", self._backend), rows)]
        return terms if fused else [*terms, self._kernels("norm", kernels("add_norm", self._backend), rows)]

    def _residual_gather(self, source: Layout, destination: Layout) -> tuple[GroupName, RowRule]:
        assert is_finer(source, destination)
        if source == DP_LOCAL:
            return "attn_dp", "padded"
        if destination == DP_LOCAL:
            return "attn_tp", "dp_local"
        return "tp", "padded"

    def _gather(self, boundary: str, op: Op, impl: str, before: State, after: State, shape: LayerShape) -> list[Term]:
        if not op.kind.is_collective:
            return []
        group = group_of(boundary, op, before, shape, self._p)
        if boundary == "head_in" and self._setup.executor.gathers_only_logit_rows:
            rows: RowRule = "logits"
        else:
            rows = "dp_local" if after.hidden == DP_LOCAL else "padded"
        kind, width = self._impls[impl].kind, None
        terms = []
        if op.kind.latent:
            width = self._setup.model.latent_width
            # The latents side by side, to travel at once.
            terms.append(self._kernels("latent_gemm", _COPY, "shard", width=width))
        if kind == "one_kernel":
            return [*terms, self._one_kernel(op, impl, group, rows, width)]
        if kind == "peer_to_peer":
            return [Term("wire", op.name, "padded", self._hidden, PeerKernel(op.name))]
        return [*terms, *(self._wire(send.by.name, impl, group, rows, width=width) for send in op.way.sends)]

    def _latent(self, boundary: str, op: Op, shape: LayerShape) -> list[Term]:
        if boundary != "attn_in" or not shape.has_latent:
            return []
        model = self._setup.model
        assert model.q_lora_rank is not None and model.kv_lora_rank is not None
        consumed = _rows_of(self._p.attention_layout)
        rows: RowRule = "shard" if op.kind.latent else consumed
        normed = model.q_lora_rank + model.kv_lora_rank + (model.index_head_dim or 0)
        norm = self._setup.executor.kernels_of("norm", self._backend)
        fused = self._setup.executor.latent_projections == "one_gemm"
        widths = (model.latent_width,) if fused else model.latent_widths
        return [
            *(Term("latent_gemm", "q_a and kv_a", rows, self._hidden, Gemm(width)) for width in widths),
            self._kernels("norm", norm * 2, consumed, width=normed // 2),  # two norms, of q and of kv
        ]

    # ---- building blocks --------------------------------------------------------------------------------------------

    @property
    def _hidden(self) -> int:
        return self._setup.model.hidden_size

    def _wire(
        self,
        op: str,
        impl: str,
        group: GroupName,
        rows: RowRule,
        part: Part = "activations",
        wire: WireFormat | None = None,
        width: int | None = None,
        times: int = 1,
    ) -> Term:
        """A library collective whose whole buffer is rows x width, `times` over (gathering whole messages)."""
        width = width or self._hidden
        if wire is None:
            return Term("wire", op, rows, width, Wire(op, impl, self._dtype, group, self._element * times))
        if part == "scales":
            work = Wire(op, impl, wire.scales.dtype, group, wire.scales.bytes_each * times)
            return Term("wire", f"{op} of scales", rows, wire.scales.per_row(width), work)
        label = f"{op} of {wire.name} values"
        return Term("wire", label, rows, width, Wire(op, impl, wire.carrier, group, wire.value_bytes * times))

    def _one_kernel(self, op: Op, impl: str, group: GroupName, rows: RowRule, width: int | None = None) -> Term:
        """The whole op by one kernel of commplan's: whatever else it does is in the time of its wire term."""
        name = op.kind.table
        attn_dp = self._p.attn_dp if op.kind.spans_two else None
        work = OneKernel(name, impl, self._dtype, group, self._element, op.algorithm, attn_dp)
        work = work._replace(wire=op.wire_name, scale_group=op.scale_group)
        return Term("wire", name, rows, width or self._hidden, work)

    def _composed(self, op: Op, impl: str, group: GroupName, rows: RowRule) -> list[Term]:
        """Messages on their way, and what they do not hide of the kernels around them, if there are any."""
        assert op.algorithm is not None  # sums by whole messages say theirs
        who = (op.kind.table, impl, self._backend, self._dtype, group, self._element, op.algorithm)
        work = Composed(*who, op.wire_name, op.scale_group, op.pieces or 1)
        how = "through the host" if self._impls[impl].is_through_host else "by the library"
        wire = Term("wire", f"{op.name} {how}", rows, self._hidden, work)
        beside = Term("quantize", "kernels beside it", rows, self._hidden, Unhidden(work))
        return [wire] if op.way.in_one_launch else [wire, beside]

    def _kernels(
        self, category: Category, kernels: Kernels, rows: RowRule, group_size: int = 1, width: int | None = None
    ) -> Term:
        label = "+".join(dict.fromkeys(kernel.name for kernel in kernels))
        return Term(category, label, rows, width or self._hidden, Passes(kernels, group_size))

    def _pad_copy(self) -> Term:
        return self._kernels("padding", _COPY, "unaligned")._replace(label="pad")

    def _cut(self, source: Layout, destination: Layout) -> list[Term]:
        """From whole rows to a shard the last rank copies its own where one is missing, and all wait for it. With
        attention DP rows are padded to whole shards from the start."""
        if source != REPLICATED or destination != TOKEN_SHARDED or self._p.attn_dp > 1:
            return []
        return [self._kernels("padding", _COPY, "unaligned_shard")._replace(label="pad a shard")]


def _pads(send: Send) -> bool:
    """A library takes whole shards, so rows are copied to pad; a quantiser writes into a buffer of the padded size."""
    return send.rows == "padded" and send.part == "activations"


_ROWS: dict[Layout, RowRule] = {REPLICATED: "all", DP_LOCAL: "dp_local", TOKEN_SHARDED: "shard"}


def _rows_of(layout: Layout) -> RowRule:
    return _ROWS[layout]
