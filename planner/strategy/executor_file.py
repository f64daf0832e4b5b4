"""What an executor can run, read from its file without loading anything heavy: for the runtime as for the planner.

The files stand in planner/executors/, where their full validation is; these classes are what it fills. A file that
comes with commplan is validated by the tests, so here it is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from .errors import InputError, did_you_mean
from .impl_rules import algorithm_refusal, place_refusal
from .layout import LayerShape, Parallelism
from .op_kinds import KINDS
from .ops import Op
from .vendors import BACKENDS
from .words import MOE_BACKENDS, Carrier, GroupName, ImplKind, MlpKind, MoeBackend, ScaleGroup
from .yaml_file import read_mapping

FOLDER = Path(__file__).parents[1] / "executors"
_INSIDE = LayerShape()  # of a layer whose follower is on the same devices
_STRICT = {"extra": "forbid"}  # for pydantic, where the planner validates a file


@dataclass(frozen=True)
class Impl:
    """Who performs an op, and where it can.

    library       collectives, of a library or in one launch, costed by tables, else by formulas
    peer_to_peer  fused kernels that nobody here has run, costed as launches and bytes
    one_kernel    an op is one launch, with all that belongs to it: costed by a table of its own, else by a formula
    composed      a sum by kernels of commplan's own around a `carrier` of whole messages, of a quantised one with its
                  scales inside: costed by a table of its own, else, around calls of the library, by its passes and
                  their tables

    `provider` is who makes an impl that is not commplan's own, nor a backend. An impl that a server runs by itself and
    that no plan may name there says why in `stock_only`: it prices what the server does without a plan.

    max_message_bytes_of  limits by algorithm, of what an impl does so for short messages alone
    max_message_bytes_by  limits by compute capability, then by ranks (null: any size); elsewhere the impl never runs.
                          `Executor.on` settles them for a machine
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    vendors: tuple[str, ...]
    kind: ImplKind = "library"
    carrier: Carrier = "library"  # of a composed impl: what brings its messages to the other ranks
    needs_table: bool = False  # offered only where a calibration has a table of it
    fuses_norm: bool = False  # does the residual add and the norm that follow as well
    strategies: tuple[str, ...] | None = None  # offered to these strategies alone
    dtypes: tuple[str, ...] | None = None  # of the activations; null: any
    max_ranks: int | None = None  # of the group it runs over
    ranks: tuple[int, ...] | None = None  # of that group: it has kernels for these numbers alone
    row_multiple: int = 1  # elements of a row are a multiple of this
    max_message_bytes: int | None = None  # larger messages it refuses
    max_message_bytes_of: dict[str, int] | None = None
    max_message_bytes_by: dict[str, dict[int, int | None]] | None = None
    topologies: tuple[str, ...] | None = None  # works inside a node alone; for more than two ranks over these links
    peer_access: bool = False  # devices read each other's memory, so the link must let them
    multicast: bool = False  # the switch adds and multiplies, so the link must be able to
    only_topologies: bool = False  # and a pair too is joined by one of these links
    wires: tuple[str, ...] | None = None  # formats that it sends, of an op that names its own
    scale_groups: tuple[ScaleGroup, ...] | None = None  # and columns of a scale
    algorithms: tuple[str, ...] | None = None  # and how
    ranks_differ: str | None = None  # why the ranks end with different values
    accumulates: Literal["fp32", "activations"] | None = None  # what sums are kept in; null: nobody has looked
    fixed_order: tuple[str, ...] = ()  # ops, or op.algorithm, that add in the same order at every token count
    provider: str | None = None
    stock_only: str | None = None
    status: str | None = None

    @property
    def is_own(self) -> bool:
        """True for a kernel of commplan's own."""
        return self.kind == "one_kernel" and self.provider is None

    @property
    def is_composed(self) -> bool:
        """True for kernels of commplan's own around what carries whole messages."""
        return self.kind == "composed"

    @property
    def is_through_host(self) -> bool:
        """True where messages go through memory that the ranks of one host share."""
        return self.carrier == "host"

    def most_bytes(self, algorithm: str | None) -> int | None:
        """The largest message that it takes by an algorithm; None: any."""
        return (self.max_message_bytes_of or {}).get(algorithm or "", self.max_message_bytes)

    def adds_in_order(self, op: Op) -> bool:
        """Does this impl add the partials of an op in the same order, whatever the number of rows?"""
        return op.name in self.fixed_order or f"{op.name}.{op.algorithm}" in self.fixed_order

    def lacks_format(self, op: Op) -> str | None:
        """What of an op's format, or of its algorithm, this impl does not do, or None."""
        for word, value, accepted in (
            ("wire", op.wire_name, self.wires),
            ("group", op.scale_group, self.scale_groups),
            ("algorithm", op.algorithm, self.algorithms),
        ):
            if value is not None and accepted is not None and value not in accepted:
                return f"{word} {value}; it does {', '.join(accepted)}"
        return None


@dataclass(frozen=True)
class OpCapability:
    """Impls that perform an op. An op that is not listed cannot run at all."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    impls: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A place where an op cannot run under this executor, and why."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    reason: str
    op: str | None = None  # null: any of the impls named
    boundaries: tuple[str, ...] | None = None
    modes: tuple[str, ...] | None = None
    mlp: MlpKind | None = None
    attn_dp: bool | None = None  # true: only with attention DP; false: only without
    attn_tp: bool | None = None  # true: only where a DP group has several ranks; false: only where it has one
    group: GroupName | None = None
    impls: tuple[str, ...] | None = None
    architectures: tuple[str, ...] | None = None  # of models of these alone
    algorithms: tuple[str, ...] | None = None  # by these alone

    def covers(
        self,
        boundary: str,
        op: Op,
        mode: str,
        mlp: MlpKind,
        parallelism: Parallelism,
        architecture: str | None = None,
    ) -> bool:
        """True where the refusal speaks of this op in this place."""
        return (
            (self.op is None or op.name == self.op)
            and (self.architectures is None or architecture in self.architectures)
            and (self.group is None or op.group == self.group)
            and (self.impls is None or op.impl in self.impls)
            and (self.algorithms is None or op.algorithm in self.algorithms)
            and (self.attn_tp is None or self.attn_tp == (parallelism.attn_tp > 1))
            and (self.boundaries is None or boundary in self.boundaries)
            and (self.modes is None or mode in self.modes)
            and (self.mlp is None or (mlp == self.mlp and boundary == "mlp_out"))
            and (self.attn_dp is None or self.attn_dp == (parallelism.attn_dp > 1))
        )


@dataclass(frozen=True)
class Capabilities:
    """What one executor can run.

    is_measurable  its kernels are those of commplan's runtime, so that `commplan calibrate` can measure them
    architectures  null: any
    versions       of what it runs in, that it was tested with; null: it comes with commplan
    absent         ops that are not listed, and why
    hybrid_experts false: experts are spread over one or all ranks (ep), never over some
    pipeline       runs a model whose layers are divided over stages (pp)
    """

    name: str
    architectures: tuple[str, ...] | None
    impls: dict[str, Impl]
    ops: dict[str, OpCapability]
    is_measurable: bool = False
    versions: tuple[str, ...] | None = None
    moe_backends: tuple[MoeBackend, ...] = MOE_BACKENDS
    absent: dict[str, str] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    hybrid_experts: bool = True
    pipeline: bool = False

    # ---- split ------------------------------------------------------------------------------------------------------

    def split_refusal(self, p: Parallelism) -> tuple[str, str] | None:
        """(key, why) where the executor cannot run a model that is split like this, or None."""
        if p.ep not in (1, p.tp) and not self.hybrid_experts:
            why = f"{self.name} spreads experts over 1 or all {p.tp} ranks, not over some with each split over the rest"
            return "ep", f"{why}: use 1 or {p.tp}, or executor plan_only for costs and reports"
        if p.pp > 1 and not self.pipeline:
            why = f"{self.name} runs plans of one stage: every rank has all layers, and none hands its streams on"
            return "pp", f"{why}; use 1, or executor plan_only for costs and reports"
        return None

    # ---- impls ------------------------------------------------------------------------------------------------------

    @cached_property
    def own_impls(self) -> tuple[str, ...]:
        """Kernels of commplan's own."""
        return tuple(name for name, impl in self.impls.items() if impl.is_own)

    def ops_of(self, impl: str) -> tuple[str, ...]:
        """The ops that an impl performs."""
        return tuple(op for op, capability in self.ops.items() if impl in capability.impls)

    def runs_beside(self, impl: str, backend: str) -> bool:
        """False where an impl is for other devices than those of a backend, or is another backend of the same ones."""
        if impl in BACKENDS:
            return impl == backend
        return BACKENDS[backend].vendor in self.impls[impl].vendors

    def impl_refusal(
        self, boundary: str, op: Op, backend: str, dtype: str, group_size: int, width: int, shape: LayerShape = _INSIDE
    ) -> str | None:
        """Why the impl of an op cannot perform it here, or None. `backend` is the library of the machine."""
        columns = op.wire.scales.columns if op.wire is not None else None
        if columns is not None and width % columns:
            return f"a scale for {columns} columns needs rows of a multiple of {columns}, and these have {width}"
        found = self.impls.get(op.impl or backend)
        if op.pieces is not None and (found is None or not found.is_composed):
            by = ", ".join(name for name, each in self.impls.items() if each.is_composed) or "none that it has"
            return f"pieces are of an impl of kernels around whole messages ({by}); this one is {op.impl or backend}"
        if op.impl is None or op.impl not in self.impls:
            return None
        name, impl = op.impl, self.impls[op.impl]
        if lacks := impl.lacks_format(op):
            return f"{name} does not do {lacks}"
        if backend in BACKENDS and not self.runs_beside(name, backend):
            if BACKENDS[backend].vendor in impl.vendors:
                return f"{name} is a backend itself, and the backend here is {backend}"
            return f"{name} runs on {' and '.join(impl.vendors)}, not where {backend} is the backend"
        if why := algorithm_refusal(name, impl, op):
            return why
        if why := place_refusal(name, impl, boundary, op, group_size, shape):
            return why
        if impl.dtypes is not None and dtype not in impl.dtypes:
            return f"{name} takes {' or '.join(impl.dtypes)} activations, not {dtype}"
        if impl.max_ranks is not None and group_size > impl.max_ranks:
            return f"{name} runs over up to {impl.max_ranks} ranks, and this group has {group_size}"
        if impl.ranks is not None and group_size not in impl.ranks:
            *others, last = map(str, impl.ranks)
            return f"{name} runs over {', '.join(others)} or {last} ranks, and this group has {group_size}"
        if width % impl.row_multiple:
            return f"{name} takes rows of a multiple of {impl.row_multiple} elements, and these have {width}"
        return None

    # ---- ops --------------------------------------------------------------------------------------------------------

    def cannot_run(self, op: str) -> str:
        """That an op is not listed, and why where that is known."""
        why = f": {self.absent[op]}" if op in self.absent else ""
        return f"executor {self.name} cannot run {op}{why}"

    def refusal(
        self,
        boundary: str,
        op: Op,
        mode: str,
        mlp: MlpKind,
        parallelism: Parallelism,
        stock: bool = False,
        architecture: str | None = None,
    ) -> str | None:
        """Why this op cannot run here under this executor, or None; `stock`: what it does without a plan can.

        `architecture`: of the model, where one is known.
        """
        if not op.kind.is_collective:
            return None
        capability = self.ops.get(op.name)
        if capability is None:
            return f"{self.cannot_run(op.name)}; it runs {', '.join(self.ops)}"
        if op.impl is not None and op.impl not in capability.impls:
            return f"executor {self.name} has no impl {op.impl} of {op.name}; it has {', '.join(capability.impls)}"
        only = self.impls[op.impl].stock_only if op.impl is not None else None
        if only is not None and not stock:
            return f"executor {self.name}: {only}"
        for refusal in self.refusals:
            if refusal.covers(boundary, op, mode, mlp, parallelism, architecture):
                return f"executor {self.name}: {refusal.reason}"
        return None

    def ops_at(
        self, boundary: str, mode: str, parallelism: Parallelism, architecture: str | None = None
    ) -> tuple[str, ...]:
        """The ops that it runs at a boundary by some impl, whatever the layouts around it."""
        return tuple(
            name
            for name in self.ops
            if boundary in KINDS[name].boundaries
            and (parallelism.attn_dp > 1 or not KINDS[name].spans_two)
            and any(
                self.refusal(boundary, op, mode, "dense", parallelism, architecture=architecture) is None
                for op in self._ways_of(name)
            )
        )

    def _ways_of(self, name: str) -> Iterator[Op]:
        """An op by each of its impls, and by whatever library there is if one performs it at all."""
        impls = self.ops[name].impls
        if set(impls) & set(BACKENDS):
            yield Op(name)
        yield from (Op(name, impl=impl) for impl in impls)


@cache
def executor_names() -> tuple[str, ...]:
    """Names of the executors that come with commplan."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def executor_path(name: str) -> Path:
    """The file of an executor; raises InputError with the accepted names."""
    if name not in executor_names():
        raise InputError(f"no such executor; {did_you_mean(name, executor_names())}", field="executor", value=name)
    return FOLDER / f"{name}.yaml"


@cache
def capabilities(name: str) -> Capabilities:
    """What the executor of that name can run; raises InputError with the accepted names."""
    data = read_mapping(executor_path(name))
    known = {key: _plain(value) for key, value in data.items() if key in Capabilities.__dataclass_fields__}
    known["impls"] = {each: Impl(**_values(_by_ranks(given))) for each, given in data["impls"].items()}
    known["ops"] = {each: OpCapability(**_values(given)) for each, given in data["ops"].items()}
    known["refusals"] = tuple(Refusal(**_values(given)) for given in data.get("refusals", ()))
    return Capabilities(**known)


def _by_ranks(given: dict[str, Any]) -> dict[str, Any]:
    """Limits by numbers of ranks: a key of YAML is a text."""
    by = given.get("max_message_bytes_by")
    if by is None:
        return given
    limits = {capability: {int(ranks): most for ranks, most in each.items()} for capability, each in by.items()}
    return {**given, "max_message_bytes_by": limits}


def _values(given: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in given.items()}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
