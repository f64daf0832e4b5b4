"""Collectives of our own, over peer-to-peer memory or around a library: which impls there are, and where refused.

Imports no torch, so that the command line refuses before it starts any rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from commplan.planner.strategy.file import (
    DP_LOCAL,
    KINDS,
    REPLICATED,
    RESIDUAL_OUT,
    GroupName,
    Impl,
    Op,
    Parallelism,
    Rows,
    State,
    StrategyFile,
    capabilities,
    group_of,
    is_finer,
    walk,
)
from commplan.planner.strategy.impl_rules import algorithm_refusal, push_refusal
from commplan.planner.strategy.vendors import BACKENDS
from commplan.planner.strategy.words import MlpKind, ScaleGroup

from ..errors import RefusedError
from .staged.page import PIECES
from .wire.layout import RowLayout

EXECUTOR_NAME = "transformers"
CAN = capabilities(EXECUTOR_NAME)
"""What plans may ask of this runtime, as its file tells the planner too."""
PEER_IMPLS = CAN.own_impls
(TRITON,) = (name for name in PEER_IMPLS if not CAN.impls[name].fuses_norm)
(TRITON_NORM,) = (name for name in PEER_IMPLS if CAN.impls[name].fuses_norm)
"""The same sums with the residual add and the RMSNorm that follow in one kernel."""
COMPOSED_IMPLS = tuple(name for name, impl in CAN.impls.items() if impl.is_composed)
"""Sums by kernels of ours around whole messages, which need no peer-to-peer memory."""
STAGED_IMPLS = tuple(name for name in COMPOSED_IMPLS if CAN.impls[name].is_through_host)
"""Those whose messages go through the host's memory, not by the library."""
(STAGED,) = (name for name in STAGED_IMPLS if not CAN.impls[name].fuses_norm)
(STAGED_NORM,) = (name for name in STAGED_IMPLS if CAN.impls[name].fuses_norm)
(COMPOSED,) = (n for n in COMPOSED_IMPLS if n not in STAGED_IMPLS and not CAN.impls[n].fuses_norm)
(COMPOSED_NORM,) = (n for n in COMPOSED_IMPLS if n not in STAGED_IMPLS and CAN.impls[n].fuses_norm)
WAITING_IMPLS = (*PEER_IMPLS, *STAGED_IMPLS)
"""Those that wait for their peers without a library, and give up."""
OUR_IMPLS = (*PEER_IMPLS, *COMPOSED_IMPLS)
"""All that a plan may name beside the backend."""

PeersKey = tuple[GroupName, int]
"""What one Peers object is for: a group by its name, and the width of its rows."""


class PeerLimits(NamedTuple):
    """What the peers of a backend take."""

    activations: tuple[str, ...]
    """As files spell them."""
    ranks: int
    row_multiple: int
    """Elements of a row are a multiple of this."""

    def refuses(self, activations: str, ranks: int, width: int) -> str | None:
        """Why they cannot work on rows of this type and width over a group of so many ranks, or None."""
        if activations not in self.activations:
            return f"its kernels compute in {' and '.join(self.activations)}, not in {activations}"
        if ranks > self.ranks:
            return f"its kernels join up to {self.ranks} ranks, and this group has {ranks}"
        if width % self.row_multiple:
            return f"its kernels take rows of a multiple of {self.row_multiple} elements, and these have {width}"
        return None


def limits_of(impl: Impl) -> PeerLimits:
    """The limits of an impl that its file states."""
    assert impl.dtypes is not None and impl.max_ranks is not None
    return PeerLimits(impl.dtypes, impl.max_ranks, impl.row_multiple)


KERNEL_LIMITS = limits_of(CAN.impls[TRITON])
"""What the kernels in `kernels/` take, with a norm or without."""
KERNEL_WIRES: tuple[str, ...] = CAN.impls[TRITON].wires or ()
KERNEL_GROUPS: tuple[ScaleGroup, ...] = CAN.impls[TRITON].scale_groups or ()
"""The formats of `quantized_all_reduce` that they send, and the columns that share a scale."""


def fuses_norm(impl: str | None) -> bool:
    """Does an impl do the residual add and the norm that follow a sum as well?"""
    return impl in OUR_IMPLS and CAN.impls[impl].fuses_norm


def without_norm(impl: str | None) -> str:
    """The impl of ours that does the same as one with the norm inside, but for the norm."""
    with_norm = CAN.impls[impl or ""]
    how = with_norm.kind, with_norm.carrier
    return next(n for n in OUR_IMPLS if how == (CAN.impls[n].kind, CAN.impls[n].carrier) and not fuses_norm(n))


class Room(NamedTuple):
    """What the Peers of a group must hold: rows of the largest message of each kind, 0 where there is none."""

    rows: int = 0
    """In the activation type: of each rank's partial, or of what a gather gives."""
    pair_rows: int = 0
    """Of one DP group, in a pair."""
    int8_rows: int = 0
    """Quantised, in two shots."""
    int8_gather_rows: int = 0
    """Quantised, by a gather."""
    one_shot_rows: int = 0
    """Summed in one shot because a plan says so, whatever their number."""
    pushed_rows: int = 0
    """Pushed to the peers by copy engines."""

    def joined(self, other: Room) -> Room:
        """Room for either."""
        return Room(*map(max, self, other))

    def holds(self, other: Room) -> bool:
        """Is everything that `other` holds held?"""
        return self.joined(other) == self


def room_of(op: str, algorithm: str | None, rows: int, attn_dp: int) -> Room:
    """Room for one op on `rows` rows of all its ranks; `attn_dp` DP groups share a pair's."""
    kind = KINDS[op]
    peers = kind.way(algorithm or None).peers
    if peers == "dp_local":
        return Room(pair_rows=-(-rows // attn_dp))
    if peers == "pushed":
        return Room(pushed_rows=rows)
    if kind.is_quantized:
        return Room(int8_gather_rows=rows) if peers == "message" else Room(int8_rows=rows)
    return Room(one_shot_rows=rows) if peers == "message" else Room(rows=rows)


class Use(NamedTuple):
    """One op of a plan by an impl of ours. `where` is the field of the file that names the impl."""

    where: str
    layer: int | None
    boundary: str
    op: Op
    before: State | None
    after: State
    group: GroupName
    width: int
    rows: int
    """Of the largest message: whole, so of a gather what comes out."""


def peer_uses(file: StrategyFile) -> Iterator[Use]:
    """Every op of a legal file that is by an impl of ours over peer-to-peer memory."""
    return uses_of(file, PEER_IMPLS)


def norm_uses(file: StrategyFile) -> Iterator[Use]:
    """Every op of a legal file that does the residual add and the norm behind it."""
    return (use for use in uses_of(file, OUR_IMPLS) if fuses_norm(use.op.impl))


def uses_of(file: StrategyFile, impls: tuple[str, ...]) -> Iterator[Use]:
    """Every op of a legal file that is by one of some impls."""
    p = file.parallelism
    for mode, ranges in file.modes.items():
        for index, plan in enumerate(ranges):
            for layer, boundary, op, before, after in walk(file, plan):
                if op.impl not in impls:
                    continue
                place = boundary if layer is None else f"layers.{layer}.{boundary}"
                group = _canonical(group_of(boundary, op, before, file.layer_shape(layer or 0), p), p)
                width = file.model.latent_width if op.kind.latent else file.model.hidden_size
                where = f"modes.{mode}[{index}].{place}.impl"
                yield Use(where, layer, boundary, op, before, after, group, width, _message_rows(group, plan.last, p))


def peers_needed(*files: StrategyFile) -> dict[PeersKey, Room]:
    """What the Peers of each group and width must hold for some plans, up to the largest of their token ranges."""
    needed: dict[PeersKey, Room] = {}
    for file in files:
        for use in peer_uses(file):
            room = room_of(use.op.name, use.op.algorithm, use.rows, file.parallelism.attn_dp)
            key = use.group, use.width
            needed[key] = room.joined(needed.get(key, Room()))
    return needed


def one_shots_needed(*files: StrategyFile) -> dict[PeersKey, int]:
    """Rows of the largest message of each group and width that one kernel sums through the host's memory."""
    needed: dict[PeersKey, int] = {}
    for file in files:
        for use in uses_of(file, STAGED_IMPLS):
            if use.op.way.in_one_launch:
                needed[use.group, use.width] = max(use.rows, needed.get((use.group, use.width), 0))
    return needed


def messages_needed(*files: StrategyFile) -> dict[GroupName, int]:
    """Bytes of the largest message that copies carry for a rank of each group through the host's memory under some
    plans."""
    needed: dict[GroupName, int] = {}
    for file in files:
        for use in uses_of(file, STAGED_IMPLS):
            if use.op.way.in_one_launch:
                continue
            wire = use.op.wire
            as_it_is = use.width * (4 if file.deployment.activations == "fp32" else 2)
            row_bytes = as_it_is if wire is None else RowLayout.of(wire, use.width).row_bytes
            needed[use.group] = max(use.rows * row_bytes, needed.get(use.group, 0))
    return needed


def _canonical(group: GroupName, p: Parallelism) -> GroupName:
    return "tp" if p.attn_dp == 1 else group


def _message_rows(group: GroupName, tokens: int, p: Parallelism) -> int:
    dp_local = p.rows(tokens, DP_LOCAL)  # padded to whole shards
    return dp_local if group == "attn_tp" else dp_local * p.attn_dp


# ---- refusals ------------------------------------------------------------------------------------------------------


def check_peer_ops(file: StrategyFile) -> None:
    """Does each impl of ours have the op that a plan names it for? Raises RefusedError; looks at no machine."""
    for use in uses_of(file, OUR_IMPLS):
        impl, op = str(use.op.impl), use.op
        if op.name not in CAN.ops_of(impl):
            raise _refusal(use, f"it has no {op.name}; it has {', '.join(CAN.ops_of(impl))}", file)
        if op.is_pushed and (why := _not_pushed_here(file, use)):
            raise _refusal(use, why, file)
        if lacks := CAN.impls[impl].lacks_format(op):
            raise _refusal(use, f"it does not do {lacks}", file)
        if why := algorithm_refusal(impl, CAN.impls[impl], op):
            raise _refusal(use, why, file)
        if impl in STAGED_IMPLS and (op.pieces or 1) > PIECES:
            raise _refusal(use, f"its messages go in up to {PIECES} pieces, not in {op.pieces}", file)
        most = CAN.impls[impl].most_bytes(op.algorithm)
        if most is not None and 2 * use.width * (use.rows - file.parallelism.tp + 1) > most:  # rows that are padded
            how = f"{op.algorithm} of {impl} takes up to {most // (2 * use.width)} rows of this width, not {use.rows}"
            raise _refusal(use, how, file)
        if fuses_norm(impl) and use.boundary not in RESIDUAL_OUT:
            where = " and ".join(RESIDUAL_OUT)
            raise _refusal(use, f"it works at {where}, where a residual add and a norm follow", file)
        partial = REPLICATED if use.boundary == "mlp_out" else file.parallelism.attention_layout
        if fuses_norm(impl) and op.kind.rows is Rows.SUMMED and is_finer(use.after.hidden, partial):
            way = f"take {without_norm(impl)} there"
            reason = f"the rows are sliced to {use.after.hidden} between this sum and its norm; {way}"
            raise _refusal(use, reason, file)


def _not_pushed_here(file: StrategyFile, use: Use) -> str | None:
    """Why rows cannot be pushed to the peers while they are made, as the planner's file for an executor has it."""
    mlp: MlpKind = "moe" if use.layer in file.model.moe_layers else "dense"
    can, p, op = capabilities(file.executor), file.parallelism, use.op
    why = can.refusal(use.boundary, op, "prefill", mlp, p)
    return why or push_refusal(op, can.impls[str(op.impl)], p.group_size(use.group))


def check_peer_limits(file: StrategyFile, backend: str, limits: PeerLimits | None) -> None:
    """Can the peers of a backend run a plan? `limits` None: it has no peers. Raises RefusedError."""
    activations, p = file.deployment.activations, file.parallelism
    for use in peer_uses(file):
        if limits is None:
            raise _refusal(use, f"{backend} has no collectives of our own", file)
        if (reason := limits.refuses(activations, p.group_size(use.group), use.width)) is not None:
            raise _refusal(use, reason, file)
    for use in uses_of(file, STAGED_IMPLS):
        if BACKENDS[backend].device_type == "cpu":
            continue  # by plain torch, in any type
        impl = CAN.impls[str(use.op.impl)]
        if BACKENDS[backend].vendor not in impl.vendors:
            raise _refusal(use, f"it runs on {' and '.join(impl.vendors)}, not where {backend} is the backend", file)
        if (reason := limits_of(impl).refuses(activations, p.group_size(use.group), use.width)) is not None:
            raise _refusal(use, reason, file)


def _refusal(use: Use, reason: str, file: StrategyFile) -> RefusedError:
    backend = file.hardware.backend
    return RefusedError(
        f"{reason}; leave `impl` out ({backend} then performs {use.op.name}), or plan again for this machine",
        field=use.where,
        value=use.op.impl,
    )
