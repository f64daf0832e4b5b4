"""Layouts of the two streams over the ranks, and the rules by which an op moves one layout to the next.

This is the whole algebra: the planner builds its graph with `apply`, the validator walks a strategy file with it, and
neither has rules of its own. Pure data and functions; imports nothing heavy, because the runtime loads it too.

Layouts, from coarse to fine:
  replicated     all T rows on every rank
  dp_local       the rows of my DP group, on each of its attn_tp ranks      (only with attention data parallelism)
  token_sharded  T/tp rows each, zero-padded, blocked by DP group
A hidden stream may also be `partial`: a sum over a group is still due. Nothing but an op at an `_out` boundary takes
that away, so no state below ever carries a partial across a boundary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple

from .op_record import Rows
from .ops import Op
from .words import GroupName, MoeBackend, Numerics

Layout = Literal["replicated", "dp_local", "token_sharded"]
REPLICATED: Layout = "replicated"
DP_LOCAL: Layout = "dp_local"
TOKEN_SHARDED: Layout = "token_sharded"
_FINENESS: dict[Layout, int] = {REPLICATED: 0, DP_LOCAL: 1, TOKEN_SHARDED: 2}

LAYER_BOUNDARIES = ("attn_in", "attn_out", "mlp_in", "mlp_out")
FORWARD_BOUNDARIES = ("embed_out", "head_in")
BOUNDARIES = ("embed_out", *LAYER_BOUNDARIES, "head_in")
IN_BOUNDARIES = ("attn_in", "mlp_in", "head_in")

TENSOR_PARALLEL: MoeBackend = "tensor_parallel"
ALL_TO_ALL: MoeBackend = "all_to_all"


class IllegalOpError(Exception):
    """An op cannot stand at a boundary; the text says why, and what could."""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """tp ranks; attention splits them into attn_dp groups of attn_tp = tp / attn_dp ranks.

    The layers are divided over pp stages of tp ranks each. Layouts and groups are those within a stage.
    """

    tp: int
    attn_dp: int = 1
    ep: int = 1
    moe_backend: MoeBackend = TENSOR_PARALLEL
    pp: int = 1

    def stages(self, num_layers: int) -> tuple[range, ...]:
        """The layers of each stage."""
        return _stages(self.pp, num_layers)

    def ends_stage(self, layer: int, num_layers: int) -> bool:
        """Does another stage follow this layer, which both streams are handed to?"""
        return self.pp > 1 and layer in _stage_ends(self.pp, num_layers)

    @property
    def attn_tp(self) -> int:
        """Ranks that hold the same requests."""
        return self.tp // self.attn_dp

    @property
    def attention_layout(self) -> Layout:
        """What attention consumes. A DP group of one rank holds exactly its shard of the tokens."""
        if self.attn_dp == 1:
            return REPLICATED
        return DP_LOCAL if self.attn_tp > 1 else TOKEN_SHARDED

    def group_size(self, group: GroupName) -> int:
        """Number of ranks in `tp`, `attn_tp` (a DP group) or `attn_dp` (the dp axis)."""
        return {"tp": self.tp, "attn_tp": self.attn_tp, "attn_dp": self.attn_dp}[group]

    def canonical_group(self, group: GroupName) -> GroupName:
        """Without attention DP a DP group is the tp group; one name for one set of ranks."""
        return "tp" if group == "attn_tp" and self.attn_dp == 1 else group

    def rows(self, tokens: int, layout: Layout) -> int:
        """Rows per rank of a stream of `tokens` rows; shards and DP groups are padded to equal size."""
        if layout == REPLICATED:
            return tokens
        shard = -(-tokens // self.tp)
        return shard if layout == TOKEN_SHARDED else shard * self.attn_tp


@cache
def _stages(pp: int, num_layers: int) -> tuple[range, ...]:
    """As vLLM divides them: alike, and what is left over one by one from the last stage but one backwards.

    The last stage has the head, so it gets none of these; the first has the embedding, so it gets one last of all.
    """
    least, over = divmod(num_layers, pp)
    found, start = [], 0
    for stage in range(pp):
        end = start + least + (pp - 1 - over <= stage < pp - 1)
        found.append(range(start, end))
        start = end
    return tuple(found)


@cache
def _stage_ends(pp: int, num_layers: int) -> frozenset[int]:
    return frozenset(stage[-1] for stage in _stages(pp, num_layers)[:-1])


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What the algebra needs to know of one layer."""

    all_to_all: bool = False  # its MLP takes and returns token shards: a MoE with an all-to-all backend
    has_latent: bool = False  # MLA with q_lora_rank: q_a/kv_a may run on the shard, before the gather
    streams: int = 1  # residual streams of hidden width; blocks read and write one that is mixed from them
    ends_stage: bool = False  # its streams go on to the next pipeline stage, rank by rank, in any layout

    def mlp_layout(self) -> Layout:
        """What the MLP consumes."""
        return TOKEN_SHARDED if self.all_to_all else REPLICATED


class State(NamedTuple):
    """Layouts of both streams between two boundaries. `fused`: the last op already did the next boundary's work."""

    hidden: Layout
    residual: Layout
    fused: bool = False


def numerics_class(boundary: str, op: Op, p: Parallelism) -> Numerics:
    """exact, reordered or quantized. A fold, or a sum widened to all tp ranks, changes the order of additions;
    where rows are pushed the GEMM before runs in pieces, and may add in another order too; and so may kernels around
    whole messages. What our own kernel is told is of one class wherever its rows land."""
    around = op.algorithm in op.kind.composed and op.algorithm not in op.kind.own_algorithms
    moved = op.is_pushed or around
    if op.kind.numerics == "exact" and (op.residual == "fold" or moved or is_widened(boundary, op, p)):
        return "reordered"
    return op.kind.numerics


def is_widened(boundary: str, op: Op, p: Parallelism) -> bool:
    """Does this sum run over all tp ranks although a DP group's rows are due, which stand in a buffer of zeros?"""
    return op.kind.widens and boundary == "attn_out" and op.group == "tp" and p.attn_dp > 1


def with_group(boundary: str, op: Op, state: State | None, shape: LayerShape, p: Parallelism) -> Op:
    """The op with its group spelled as canonical files spell it: with attention DP always, without it never."""
    if not op.kind.is_collective or op.kind.spans_two:
        return op
    if p.attn_dp == 1:
        return replace(op, group=None)
    if op.group is not None:
        return op
    if boundary in IN_BOUNDARIES:
        assert state is not None
        group: GroupName | None = _gather_group(state.hidden, _consumer_layout(boundary, shape, p), p)
    else:
        group = sum_group(boundary, shape, p)
    return replace(op, group=group)


def group_of(boundary: str, op: Op, state: State | None, shape: LayerShape, p: Parallelism) -> GroupName:
    """The group an op runs over: as spelled, else the one that connects its layouts."""
    spelled = with_group(boundary, op, state, shape, p).group
    return p.canonical_group(spelled) if spelled else "tp"


def is_finer(a: Layout, b: Layout) -> bool:
    """True if a rank holds fewer rows under `a` than under `b`."""
    return _FINENESS[a] > _FINENESS[b]


def sum_group(boundary: str, shape: LayerShape, p: Parallelism) -> GroupName | None:
    """The group over which the tensor that reaches an `_out` boundary is partial, or None where it is complete."""
    if boundary == "mlp_out":
        return "tp" if p.tp > 1 and not shape.all_to_all else None
    return p.canonical_group("attn_tp") if p.attn_tp > 1 else None


def apply(boundary: str, op: Op, state: State | None, shape: LayerShape, p: Parallelism) -> State:
    """The state after `op` at `boundary` (state None: before `embed_out`). Raises IllegalOpError with the reason."""
    if boundary not in op.kind.boundaries:
        raise IllegalOpError(f"{op.name} has no place at {boundary}; it belongs at {_words(op.kind.boundaries)}")
    _check_fused_pairing(boundary, op, state)
    if op.kind.rows is Rows.TAKEN:
        assert state is not None
        return state._replace(fused=False)
    if boundary in IN_BOUNDARIES:
        assert state is not None
        return _apply_in(boundary, op, state, shape, p)
    return _apply_out(boundary, op, state, shape, p)


def _check_fused_pairing(boundary: str, op: Op, state: State | None) -> None:
    # Before the head no attn_in follows that a fused op could have done; its rows are gathered like any others.
    spans = state is not None and state.fused and boundary != "head_in"
    is_taken = op.kind.rows is Rows.TAKEN
    if is_taken and not spans:
        raise IllegalOpError("`fused` stands only at the second boundary of an op that spans two")
    if spans and not is_taken:
        raise IllegalOpError(f"the op before spans this boundary too, so {boundary} must say `fused`, not {op.name}")


def _apply_in(boundary: str, op: Op, state: State, shape: LayerShape, p: Parallelism) -> State:
    wanted = _consumer_layout(boundary, shape, p)
    hidden = state.hidden
    if op.kind.latent:
        _check_latent(hidden, wanted, shape, p)
    elif hidden == wanted:
        if not op.kind.is_none:
            raise IllegalOpError(f"the hidden state is already {wanted}, which {boundary} wants: use none")
    elif is_finer(wanted, hidden):
        if op.kind.rows is not Rows.SLICED:
            raise IllegalOpError(f"the hidden state is {hidden} and {boundary} wants {wanted}: use slice")
    elif not op.kind.gathers:
        also = " or latent_all_gather" if boundary == "attn_in" and shape.has_latent else ""
        raise IllegalOpError(
            f"the hidden state is {hidden} and {boundary} wants {wanted}: use all_gather{also}, not {op.name}"
        )
    if op.kind.is_collective:
        _check_group(op, _gather_group(hidden, wanted, p), p)
    return State(hidden=wanted, residual=state.residual)


def _consumer_layout(boundary: str, shape: LayerShape, p: Parallelism) -> Layout:
    if p.tp == 1 or boundary == "head_in":
        return REPLICATED
    return p.attention_layout if boundary == "attn_in" else shape.mlp_layout()


def _gather_group(hidden: Layout, wanted: Layout, p: Parallelism) -> GroupName:
    if hidden == DP_LOCAL:
        return "attn_dp"
    return p.canonical_group("attn_tp") if wanted == DP_LOCAL else "tp"


def _check_latent(hidden: Layout, wanted: Layout, shape: LayerShape, p: Parallelism) -> None:
    if not shape.has_latent:
        raise IllegalOpError("latent_all_gather needs multi-head latent attention with q_lora_rank")
    if hidden != TOKEN_SHARDED:
        raise IllegalOpError(f"latent_all_gather starts from token_sharded rows; here they are {hidden}")
    if wanted == TOKEN_SHARDED:
        raise IllegalOpError(f"with attn_tp {p.attn_tp} attention works on the shard itself: use none")


def _apply_out(boundary: str, op: Op, state: State | None, shape: LayerShape, p: Parallelism) -> State:
    if state is None and op.residual is not None:
        raise IllegalOpError(f"there is no residual at {boundary} yet: leave `residual` out")
    group = sum_group(boundary, shape, p)
    complete: Layout = TOKEN_SHARDED if boundary == "mlp_out" and shape.all_to_all else p.attention_layout
    if p.tp == 1:
        complete = REPLICATED
    if group is None:
        if not op.kind.is_none:
            raise IllegalOpError(f"nothing is left to sum at {boundary} here ({complete} rows are complete): use none")
        destination = complete
    else:
        if op.kind.is_none:
            raise IllegalOpError(f"{boundary} holds a sum over {group} still due: none would leave it partial")
        destination = _sum_destination(boundary, op, group, shape, p)
    residual = destination if state is None else _residual_after(op, state.residual, destination, shape.streams)
    return State(hidden=destination, residual=residual, fused=op.kind.spans_two)


def _sum_destination(boundary: str, op: Op, group: GroupName, shape: LayerShape, p: Parallelism) -> Layout:
    if op.kind.spans_two:
        return _fused_destination(boundary, op, shape, p)
    if group != "tp" and is_widened(boundary, op, p):
        return REPLICATED  # placed in a zero buffer of all T rows, summed over tp
    _check_group(op, group, p)
    return TOKEN_SHARDED if op.kind.rows is Rows.SCATTERED else p.attention_layout


def _fused_destination(boundary: str, op: Op, shape: LayerShape, p: Parallelism) -> Layout:
    if p.attn_dp == 1:
        raise IllegalOpError(
            f"{op.name} fuses attention TP x DP collectives; attn_dp is 1, so there is no pair to fuse"
        )
    if p.attn_tp == 1:
        raise IllegalOpError(
            f"with one rank per DP group the pair is all_gather and reduce_scatter over tp: use those, not {op.name}"
        )
    if boundary == "attn_out" and shape.all_to_all:
        raise IllegalOpError(f"{op.name} leaves all rows on every rank, but this MoE takes token shards")
    return REPLICATED if boundary == "attn_out" else DP_LOCAL


def _check_group(op: Op, expected: GroupName, p: Parallelism) -> None:
    group = p.canonical_group(op.group) if op.group else expected
    if group != expected:
        raise IllegalOpError(f"{op.name} over {op.group} does not connect these layouts; the group is {expected}")


def _residual_after(op: Op, residual: Layout, destination: Layout, streams: int) -> Layout:
    if not is_finer(residual, destination):
        if op.residual is not None:
            raise IllegalOpError(
                f"the residual is {residual} and reaches {destination} without {op.residual}: leave `residual` out"
            )
        return destination  # equal, or a slice that costs nothing
    if op.residual is None:
        ways = "`residual: gather`" if streams > 1 else "`residual: fold` or `residual: gather`"
        raise IllegalOpError(f"the residual is {residual}, the rows come out {destination}: say {ways}")
    if op.residual == "fold":
        if streams > 1:
            raise IllegalOpError(
                f"the residual is {streams} streams, into which the sum is mixed afterwards: no sum of one stream can "
                "carry them; use `residual: gather`"
            )
        if op.kind.is_quantized:
            raise IllegalOpError(f"{op.name} would quantise the folded residual: use `residual: gather`")
        if not op.kind.folds:
            raise IllegalOpError(f"{op.name} sums nothing that could carry the residual")
    return destination


def _words(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
