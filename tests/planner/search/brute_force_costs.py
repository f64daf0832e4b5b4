"""What a listed plan costs, composed by hand: which collectives of which bytes, and which kernels over which rows.

Price lists are shared with the planner: `CollectiveCosts` for one collective, `DeviceCosts` for one GEMM or one kernel
that moves so many bytes, the executor's file for the kernels it launches. What is bought from them is stated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import networkx

from commplan.planner.cost.collective_tables import Measured
from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.kernels import DeviceCosts
from commplan.planner.cost.layers import LayerCosts
from commplan.planner.cost.op_costs import OpCosts
from commplan.planner.cost.terms import OneKernel
from commplan.planner.cost.workload import work_of
from commplan.planner.descriptions.setup import Setup
from commplan.planner.strategy.op_kinds import KINDS

from ...quantised_ops import QUANTISED
from .brute_force import ALL, COMPOSED, FEW, FUSED_OPS, GROUP, SHARD, STAGED, Move

OWN = ("commplan_triton", "commplan_triton_norm", "flashinfer_fp8")
SCALE_BYTES, INT8_BYTES = 4, 1


class Cost(NamedTuple):
    """In the order in which plans are compared."""

    time_ps: int
    numerics: int
    num_ops: int


class Bought(NamedTuple):
    """What a device needs, and what the host needs to launch it, in us."""

    device: float
    host: float


class Prices:
    """Prices of moves at one token count of one mode."""

    def __init__(self, setup: Setup, mode: str, tokens: int) -> None:
        dtypes, p, model = setup.deployment.dtypes, setup.parallelism, setup.model
        self.device = DeviceCosts(setup.hardware, setup.weights, dtypes.activations)
        self.wire = CollectiveCosts(setup)
        self.setup, self.model, self.dp, self.backend = setup, model, p.attn_dp, setup.hardware.backend
        self.dtype, self.element = dtypes.activations, {"fp32": 4, "bf16": 2, "fp16": 2}[dtypes.activations]
        self.groups = {"tp": p.tp, "attn_tp": p.tp // p.attn_dp, "attn_dp": p.attn_dp}
        self.tokens = tokens
        self.shard = (tokens + p.tp - 1) // p.tp
        self.padded = self.shard * p.tp
        self.group = self.shard * (p.tp // p.attn_dp)
        work = setup.deployment.modes[mode]
        logits = tokens if mode == "decode" else -(-tokens // min(work.sequence_tokens or 1, tokens))
        self.logits = -(-logits // p.tp) * p.tp if setup.executor.gathers_only_logit_rows else self.padded
        self._known: dict[Move, tuple[int, int]] = {}
        self.host = setup.executor.host
        self.launch = self.host.launch_us.value
        usual = "graph" if mode == "decode" else "eager"
        if setup.executor.name == "sglang":  # a prefill too, and neither with attention DP
            usual = "eager" if p.attn_dp > 1 or mode == "mixed" else "graph"
        self.eager = (work.launch or usual) == "eager" and self.backend != "gloo"
        self.always = LayerCosts(setup, OpCosts(setup, mode))
        self.work = work_of(mode, work, tokens)
        self._behind: dict[object, tuple[int, int]] = {}

    def plan(self, moves: Sequence[Move]) -> Cost:
        """A layer takes the longer of what its device works and what its host launches; so do the two ends.

        Left out is what the device works in any case.
        """
        time = sum(self.segment(part, index) for index, part in enumerate(segments(moves)))
        return Cost(time, sum(m.numerics for m in moves), sum(m.name not in ("none", "fused") for m in moves))

    def segment(self, moves: Sequence[Move], index: int) -> int:
        """How much longer than its fixed work a part of the forward takes, in ps."""
        device, host = (sum(column) for column in zip(*(self.move(move) for move in moves), strict=True))
        if not self.eager or moves[0].boundary == "head_in":  # launched while the last layer runs
            return device
        works, launches = self._always(moves[0].boundary, index - 1)
        return max(works + device, launches + host) - works

    def _always(self, first: str, layer: int) -> tuple[int, int]:
        """(device, host) in ps, whatever the ops are."""
        model, launches = self.model, self.host.launches
        key = first if first != "attn_in" else (model.attention_kind(layer), model.mlp_kind(layer))
        if key not in self._behind:
            works, count, calls = [], launches.embed, 0.0
            if first == "attn_in":
                attention, mlp = key
                works = [*self.always.attention(attention, self.work), *self.always.mlp(mlp, self.work)]
                count = launches.latent_attention if model.kv_lora_rank else launches.full_attention
                count += launches.moe if mlp == "moe" else launches.dense
                if mlp == "moe" and self.setup.parallelism.moe_backend == "all_to_all":
                    calls = 2 * self._call("library")  # dispatch and combine
            device = round(sum(estimate.total_us for estimate in works) * 1_000_000)
            self._behind[key] = (device, round((count * self.launch + calls) * 1_000_000))
        return self._behind[key]

    def move(self, move: Move) -> tuple[int, int]:
        """(device, host) of one move in ps. Every purchase is rounded to a picosecond."""
        if move not in self._known:
            bought = list(self._purchases(move))
            device, host = (sum(round(b[side] * 1_000_000) for b in bought) for side in (0, 1))
            self._known[move] = (device, host)
        return self._known[move]

    def _call(self, kind: str) -> float:
        """Host of a call by its kind; what is not listed is launched like any kernel."""
        return self.host.calls[kind].value if kind in self.host.calls else self.launch

    def rows(self, held: str) -> int:
        """Rows on a rank."""
        return {ALL: self.tokens, GROUP: self.group, SHARD: self.shard}[held]

    # ---- what a move buys ----------------------------------------------------------------------------------

    def _purchases(self, move: Move) -> Iterator[Bought]:
        if move.boundary.endswith("_in"):
            yield from self._gathers(move)
            if move.boundary == "attn_in" and self.model.q_lora_rank:
                yield from self._latents(move)
            return
        yield from self._sums(move)
        if move.before is not None:
            yield from self._cut(move.before.residual, move.after.residual)
        yield from self._add_and_norm(move)

    def _cut(self, had: str, holds: str) -> Iterator[Bought]:
        """A last shard that is not full is copied into one that is."""
        if had == ALL and holds == SHARD and self.dp == 1 and self.tokens % self.groups["tp"]:
            yield self._kernel(self.shard, bytes_per_element=4)

    def _gathers(self, move: Move) -> Iterator[Bought]:
        if move.name not in ("all_gather", "latent_all_gather"):
            return
        rows = self.group if move.after.hidden == GROUP else self.padded
        if move.boundary == "head_in":
            rows = self.logits
        if move.impl == "flashinfer_mixed":
            yield self._mixed("all_gather")
        elif move.impl in OWN:
            width = None
            if move.name == "latent_all_gather":
                width = self.model.latent_width
                yield self._kernel(self.shard, width, bytes_per_element=4)
            yield self._own(move, rows, width)
        elif move.name == "latent_all_gather":
            yield self._kernel(self.shard, self.model.latent_width, bytes_per_element=4)  # side by side, read and write
            yield self._collective("all_gather", move, rows, width=self.model.latent_width)
        else:
            yield self._collective("all_gather", move, rows)

    def _latents(self, move: Move) -> Iterator[Bought]:
        """q_a and kv_a on the shard or on what attention consumes; the norms of q and kv always on the latter."""
        model, consumed = self.model, self.rows(move.after.hidden)
        rows = self.shard if move.name == "latent_all_gather" else consumed
        widths = [model.q_lora_rank or 0, (model.kv_lora_rank or 0) + (model.qk_rope_head_dim or 0)]
        if model.index_head_dim:
            widths += [model.index_head_dim, model.index_n_heads or 0]
        for width in widths if self.setup.executor.latent_projections == "one_by_one" else [sum(widths)]:
            yield Bought(self.device.gemm(rows, model.hidden_size, width).total_us, self.launch)
        for width in (model.q_lora_rank or 0, (model.kv_lora_rank or 0) + (model.index_head_dim or 0)):
            yield self._listed("norm", self.backend, consumed, width=width)

    def _sums(self, move: Move) -> Iterator[Bought]:
        n = self.groups.get(move.group or "", 1)
        within = move.boundary != "mlp_out" and self.dp > 1 and move.group == "attn_tp"  # a DP group sums its own rows
        rows, padded = (self.group, self.group) if within else (self.tokens, self.padded)
        if move.impl == COMPOSED:
            yield from self._composed(move, rows if move.algorithm == "gather" or self.dp > 1 else padded, n)
        elif move.impl == STAGED:
            yield from self._staged(move, rows, n)
        elif move.impl in OWN:
            # Rows as they are but where DP groups are padded to equal size: the kernels need no padding of their own.
            whole = rows if self.dp == 1 or move.name in ("all_reduce", *QUANTISED) else padded
            yield self._own(move, whole)
            if move.name == "all_reduce" and move.boundary == "attn_out" and self.dp > 1 and move.group == "tp":
                yield self._kernel(self.tokens, bytes_per_element=2)
                yield self._kernel(self.group, bytes_per_element=4)
        elif move.name == "all_reduce":
            yield self._collective("all_reduce", move, rows)
            if move.boundary == "attn_out" and self.dp > 1 and move.group == "tp":
                yield self._kernel(self.tokens, bytes_per_element=2)  # the zero buffer
                yield self._kernel(self.group, bytes_per_element=4)  # my rows into it
        elif move.name in QUANTISED:
            gather = move.algorithm == "gather"
            yield from self._gather_quantised(move, rows, n) if gather else self._two_shot(move, padded, n)
        elif move.name in ("all_reduce_all_gather", "reduce_scatter_all_reduce"):
            yield from self._fused(move)
        elif move.name != "none":
            if self.dp == 1 and self.tokens % self.groups["tp"]:
                yield self._kernel(self.tokens, bytes_per_element=4)  # into a buffer of full shards
            if move.impl == "flashinfer_mixed":
                yield self._mixed("reduce_scatter")
                return
            yield self._collective("reduce_scatter", move, padded)
            if move.name == "reduce_scatter_all_gather":
                back = ("tp", self.padded) if self.dp == 1 else ("attn_tp", self.group)
                yield self._collective("all_gather", move, back[1], group=back[0])

    def _gather_quantised(self, move: Move, rows: int, n: int) -> Iterator[Bought]:
        """Everyone's values and scales come in: n whole messages."""
        yield self._listed("quantize", move.impl, rows, of=move.name)
        yield self._collective("all_gather", move, rows, dtype="int8", element=INT8_BYTES * n)
        yield self._collective("all_gather", move, rows, dtype="fp32", width=1, element=SCALE_BYTES * n)
        yield self._listed("dequantize_sum", move.impl, rows, n, of=move.name)

    def _two_shot(self, move: Move, rows: int, n: int) -> Iterator[Bought]:
        """Each rank sums a shard and sends it round: two exchanges of one message."""
        yield self._listed("quantize", move.impl, rows, of=move.name)
        for op in ("all_to_all", "all_gather"):
            yield self._collective(op, move, rows, dtype="int8", element=INT8_BYTES)
            yield self._collective(op, move, rows, dtype="fp32", width=1, element=SCALE_BYTES)
        yield self._listed("reduce_shard", move.impl, rows, n, of=move.name)
        yield self._listed("dequantize", move.impl, rows, of=move.name)

    def _composed(self, move: Move, rows: int, n: int) -> Iterator[Bought]:
        """Values and scales as one message: a longest path through the stages of all pieces, less the calls in it."""
        width = self.model.hidden_size
        row = width * INT8_BYTES + (SCALE_BYTES if move.wire is None else width // move.wire[1] * 2)
        whole = width * self.element
        memory = self.device.memory_bytes
        sent, out = rows * row, rows * 3 * whole  # the residual in; the sum and the norm out
        if move.algorithm == "gather":
            stages = [rows * whole + sent, ("all_gather", sent * n), sent * n + out]
        else:
            summed = ("all_gather", sent)
            stages = [rows * whole + sent, ("all_to_all", sent), sent + sent / n, summed, sent + out]
        pieces = max(1, min(move.pieces or 1, rows if move.algorithm == "gather" else rows // n))

        def us(stage: float | tuple[str, float]) -> float:
            if not isinstance(stage, tuple):
                return memory(stage / pieces).total_us
            return self.wire.collective(stage[0], self.backend, "int8", move.group or "tp", stage[1] / pieces).total_us

        calls = [stage for stage in stages if isinstance(stage, tuple)]
        called = pieces * sum(map(us, calls))
        host = (move.pieces or 1) * len(calls) * self._call("library"), (move.pieces or 1) * (len(stages) - len(calls))
        path = longest_path([(isinstance(stage, tuple), us(stage)) for stage in stages], pieces)
        yield Bought(called, host[0])
        yield Bought(path - called, host[1] * self._call("composed"))

    def _staged(self, move: Move, rows: int, n: int) -> Iterator[Bought]:
        """All by its table. Between its kernels a piece is copied there, told, awaited, copied from each peer and
        looked at; a call awaits what was read before, and says what is read now."""
        width, pieces = self.model.hidden_size, move.pieces or 1
        table = self.wire.found(Measured(move.name, STAGED, self.dtype, n, move.algorithm, pieces=pieces), width)
        time, _ = table.curve.at(rows * width * self.element)  # type: ignore[union-attr]
        if move.algorithm == FEW:
            yield Bought(time, self.launch)
            return
        kernels = 2 if move.name in QUANTISED else 1
        yield Bought(time, ((kernels + 3 + n) * pieces + 2) * self.launch)

    def _fused(self, move: Move) -> Iterator[Bought]:
        summing = move.name == "all_reduce_all_gather"
        if move.impl == "flashinfer_mixed":
            yield self._mixed(move.name)
        elif summing:
            yield self._collective("all_reduce", move, self.group, group="attn_tp")
            yield self._collective("all_gather", move, self.padded, group="attn_dp")
        else:
            yield self._collective("reduce_scatter", move, self.padded, group="attn_dp")
            yield self._collective("all_reduce", move, self.group, group="attn_tp")

    def _add_and_norm(self, move: Move) -> Iterator[Bought]:
        rows = self.rows(move.after.hidden)
        if move.before is None:
            yield self._listed("norm", self.backend, rows)  # no residual yet
        elif move.residual == "fold":
            yield self._kernel(self.rows(move.before.residual), bytes_per_element=6)  # read two, write one
            if move.impl not in (OWN[1], STAGED):
                yield self._listed("norm", self.backend, rows)
        else:
            if move.residual == "gather":
                have = move.before.residual
                group = "attn_dp" if have == GROUP else "attn_tp" if move.after.hidden == GROUP else "tp"
                gathered = self.group if move.after.hidden == GROUP else self.padded
                yield self._collective("all_gather", move, gathered, group=group, impl=self.backend)
            if move.impl not in (OWN[1], COMPOSED, STAGED):
                yield self._listed("add_norm", self.backend, rows)

    # ---- price lists ---------------------------------------------------------------------------------------

    def _collective(
        self,
        op: str,
        move: Move,
        rows: int,
        *,
        width: int | None = None,
        dtype: str | None = None,
        element: int | None = None,
        group: str | None = None,
        impl: str | None = None,
    ) -> Bought:
        size = rows * (width or self.model.hidden_size) * (element or self.element)
        who = impl or move.impl or self.backend
        time = self.wire.collective(op, who, dtype or self.dtype, group or move.group or "tp", size).total_us
        return Bought(time, self.launch if who == "custom_one_shot" else self._call("library"))

    def _own(self, move: Move, rows: int, width: int | None = None) -> Bought:
        """The whole op by one kernel, its table asked for the rows of the message."""
        name = "all_gather" if move.name == "latent_all_gather" else move.name
        dp = self.dp if move.name in FUSED_OPS else None
        work = OneKernel(name, move.impl or "", self.dtype, move.group or "tp", self.element, move.algorithm, dp)
        if move.wire is not None:
            work = work._replace(wire=move.wire[0], scale_group=str(move.wire[1]))
        time = self.wire.one_kernel(work, rows, width or self.model.hidden_size).total_us
        return Bought(time, self._call("one_kernel"))

    def _mixed(self, op: str) -> Bought:
        per_row = self.model.hidden_size * self.element
        time = self.wire.peer_to_peer(op, self.padded * per_row, self.group * per_row).total_us
        return Bought(time, self._call("peer_to_peer"))

    def _kernel(self, rows: int, width: int | None = None, *, bytes_per_element: int) -> Bought:
        """One kernel; bytes are stated for 2-byte activations."""
        moved = rows * (width or self.model.hidden_size) * bytes_per_element * self.element / 2
        return Bought(self.device.memory_bytes(moved).total_us, self.launch)

    def _listed(
        self, step: str, impl: str | None, rows: int, n: int = 1, width: int | None = None, of: str | None = None
    ) -> Bought:
        elements = rows * (width or self.model.hidden_size)
        kernels = self._kernels(step, impl or self.backend, of)
        time = sum(self.device.memory_bytes(elements * self._moved(kernel, n)).total_us for kernel in kernels)
        return Bought(time, self.launch * len(kernels))

    def _kernels(self, step: str, impl: str, of: str | None) -> tuple:  # type: ignore[type-arg]
        tables = self.setup.executor.kernels
        listed = getattr(tables if of is None else tables.wires[KINDS[of].wire.name], step)  # type: ignore[union-attr]
        return listed.get(impl, listed["default"])  # type: ignore[no-any-return]

    def _moved(self, kernel, n: int) -> float:  # type: ignore[no-untyped-def]
        sides = (kernel.read, kernel.write)
        return sum(s.message + s.gathered * n + s.shard / n for s in sides) * self.element / 2


def longest_path(stages: Sequence[tuple[bool, float]], pieces: int) -> float:
    """A stage of a piece waits for the piece's stage before, and for all that its stream was given before."""
    graph = networkx.DiGraph()
    last: dict[object, tuple[int, int]] = {}
    for index, (stream, _) in enumerate(stages):
        for piece in range(pieces):
            node = (index, piece)
            graph.add_node(node)
            for before in (last.get(stream), (index - 1, piece) if index else None):
                if before is not None:
                    graph.add_edge(before, node, weight=stages[before[0]][1])
            last[stream] = node
    graph.add_edge((len(stages) - 1, pieces - 1), "end", weight=stages[-1][1])
    return float(networkx.dag_longest_path_length(graph))


def segments(moves: Sequence[Move]) -> Iterator[Sequence[Move]]:
    """embed_out, each layer, head_in."""
    yield moves[:1]
    for first in range(1, len(moves) - 1, 4):
        yield moves[first : first + 4]
    yield moves[-1:]
