"""Executors: who runs a plan, and exactly which ops it can run. One YAML file each, read into an Executor.

Capabilities are data: the planner prunes its graph with them, the validator refuses files with them, the runtime
refuses plans with them, and all give the reason that stands in the file. The classes that the runtime shares, and its
light reader of these files, stand in planner/strategy/executor_file.py; here a file is validated in full.
"""

from __future__ import annotations

from dataclasses import fields as dataclass_fields
from functools import cache, cached_property
from typing import Literal, TypeVar

from pydantic import Field, model_validator

from ..descriptions.base import Count, FieldError, FractionFigure, Spec, Text, build, one_of
from ..descriptions.weight_types import WeightType
from ..strategy.errors import InputError, did_you_mean
from ..strategy.executor_file import (
    Capabilities,
    Impl,
    OpCapability,
    Refusal,
    executor_names,
    executor_path,
)
from ..strategy.op_kinds import ALL_REDUCE, KINDS, WIRE_NAMES
from ..strategy.vendors import BACKENDS, VENDORS
from ..strategy.wire import Wire
from ..strategy.words import MOE_BACKENDS, SCALE_GROUPS, MoeBackend
from ..strategy.yaml_file import read_mapping
from .host import Host
from .launches import ONE_LAUNCH
from .limits import settled_impl, settled_stock
from .stock import Sized, Stock

_ALGORITHMS = frozenset(name for kind in KINDS.values() for name in kind.known_algorithms)


class Traffic(Spec):
    """Bytes per element of: the `message` a rank puts in, every rank's copy (`gathered`), its N-th part (`shard`); and
    times that the message passes as it travels (`wire`), every rank's (`wire_gathered`), its N-th part (`wire_shard`).
    """

    message: Count = 0
    gathered: Count = 0
    shard: Count = 0
    wire: Count = 0
    wire_gathered: Count = 0
    wire_shard: Count = 0


class Kernel(Spec):
    """One pass over device memory: the bytes it reads and writes. No `launches`: it is inside the one before it."""

    name: Text
    read: Traffic = Traffic()
    write: Traffic = Traffic()
    launches: Literal[0, 1] = 1

    def bytes(self, elements: float, group_size: int) -> float:
        """Bytes moved for a message of `elements`."""
        per_element = 0.0
        for side in (self.read, self.write):
            per_element += side.message + side.gathered * group_size + side.shard / group_size
        return elements * per_element

    def wire_bytes(self, message_bytes: float, group_size: int) -> float:
        """Bytes moved of a message that is so large as it travels."""
        times = 0.0
        for side in (self.read, self.write):
            times += side.wire + side.wire_gathered * group_size + side.wire_shard / group_size
        return message_bytes * times


Kernels = tuple[Kernel, ...]


class WireKernels(Spec):
    """Kernels of a wire format by step, then by impl (`default` for the others): the steps that its ops take."""

    quantize: dict[str, Kernels] = Field(default_factory=dict)  # a message to values and scales
    dequantize_sum: dict[str, Kernels] = Field(default_factory=dict)  # gather: every rank's copy to the sum
    reduce_shard: dict[str, Kernels] = Field(default_factory=dict)  # two_shot: sum and requantise the shard a rank owns
    dequantize: dict[str, Kernels] = Field(default_factory=dict)  # two_shot: the gathered result

    @model_validator(mode="after")
    def _has_defaults(self) -> WireKernels:
        return _with_defaults(self, tuple(step for step in type(self).model_fields if getattr(self, step)))


class ComposedKernels(WireKernels):
    """Kernels of the composed impls by step, then by backend (`default` for the others), in any wire format."""

    sum: dict[str, Kernels] = Field(default_factory=dict)  # gather: every rank's rows, as they are, to the sum
    norm: dict[str, Kernels]  # residual add + RMSNorm behind the last step


class KernelTables(Spec):
    """Kernels by step, then by impl (`default` for the others), as the executor really launches them."""

    add_norm: dict[str, Kernels]  # residual add + RMSNorm
    norm: dict[str, Kernels]  # RMSNorm alone
    wires: dict[str, WireKernels]  # by wire format
    composed: ComposedKernels | None = None  # where some impl is composed

    @model_validator(mode="after")
    def _has_defaults(self) -> KernelTables:
        return _with_defaults(self, ("add_norm", "norm"))


T = TypeVar("T", bound=Spec)


def _with_defaults(tables: T, steps: tuple[str, ...]) -> T:
    for step in steps:
        if "default" not in getattr(tables, step):
            raise ValueError(f"{step} needs an entry `default`")
    return tables


class Weights(Spec):
    """Types of weights that the executor loads, and why no others."""

    dtypes: tuple[WeightType, ...]
    reason: Text | None = None


class MemoryUse(Spec):
    """Device memory as the executor shares it out.

    static_fraction  what weights and KV cache may fill; the rest is for activations, workspaces, graphs, the context
    """

    static_fraction: FractionFigure


class Executor(Spec):
    """What one executor can run (see `Capabilities`), and the kernels it really launches around the collectives."""

    schema_: Literal["commplan/executor/v1"] = Field(alias="schema")
    name: Text
    description: Text
    is_measurable: bool = False
    architectures: tuple[Text, ...] | None
    versions: tuple[Text, ...] | None = None
    moe_backends: tuple[MoeBackend, ...] = MOE_BACKENDS
    hybrid_experts: bool = True
    pipeline: bool = False
    impls: dict[str, Impl]
    ops: dict[str, OpCapability]
    absent: dict[str, Text] = Field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    latent_projections: Literal["one_gemm", "one_by_one"]  # q_a and kv_a (and what an indexer reads): fused, or apart
    gathers_only_logit_rows: bool  # head_in gathers the rows that need logits, not all T
    weights: Weights
    memory: MemoryUse
    kernels: KernelTables
    stock: Stock | None = None  # a server: what it does by itself
    stands_for: Text | None = None  # no server: the executor whose server its plans are held against
    host: Host

    @model_validator(mode="after")
    def _makes_sense(self) -> Executor:
        for name, impl in self.impls.items():
            _check_vendors(name, impl)
            if impl.kind == "one_kernel" and not impl.needs_table and name not in ONE_LAUNCH:
                why = "planner/executors/launches.py has no figures of it, so it needs its table: needs_table: true"
                raise FieldError(f"impls.{name}", why)
            _check_carrier(name, impl)
            _check_formats(name, impl)
            for field in ("max_ranks", "row_multiple", "max_message_bytes"):
                value = getattr(impl, field)
                if value is not None and value < 1:
                    raise FieldError(f"impls.{name}.{field}", "a positive whole number is expected", value)
            for algorithm, most in (impl.max_message_bytes_of or {}).items():
                _check_limit(name, impl, algorithm, most)
            if impl.ranks is not None and (not impl.ranks or min(impl.ranks) < 2):
                raise FieldError(f"impls.{name}.ranks", "sizes of groups are expected, from 2", list(impl.ranks))
        self.host.check_calls(tuple(self.impls))
        for op, capability in self.ops.items():
            _check_op(self, op, capability)
        _check_stock(self)
        _check_refusals(self)
        return self

    @cached_property
    def can(self) -> Capabilities:
        """What the runtime knows of it too: ops, impls, limits."""
        names = [field.name for field in dataclass_fields(Capabilities)]
        return Capabilities(**{name: getattr(self, name) for name in names})

    @cached_property
    def asks_capability(self) -> bool:
        """True where limits go by the compute capability of the devices."""
        rules: tuple[Sized, ...] = (*self.stock.sums, *self.stock.fusions) if self.stock is not None else ()
        impls = (impl.max_message_bytes_by for impl in self.impls.values())
        return any(by is not None for by in (*impls, *(rule.max_message_bytes_by for rule in rules)))

    def on(self, capability: str | None, ranks: int) -> Executor:
        """The executor on devices of a compute capability, over so many ranks: limits that go by these are settled."""
        if not self.asks_capability:
            return self
        impls = {name: settled_impl(name, impl, capability, ranks) for name, impl in self.impls.items()}
        stock = None if self.stock is None else settled_stock(self.stock, impls, capability, ranks)
        found = self.model_copy(update={"impls": impls, "stock": stock})
        found.__dict__.pop("can", None)  # a copy keeps what was computed of the old one
        return found

    def kernels_of(self, step: str, impl: str, wire: Wire | None = None) -> Kernels:
        """The kernels of a step (`add_norm`, or `quantize` to a wire format) for an impl, or its `default`."""
        tables: Spec = self.kernels if wire is None else self.kernels.wires[wire.name]
        table: dict[str, Kernels] = getattr(tables, step)
        return table[impl] if impl in table else table["default"]

    def composed_kernels(self, step: str, backend: str) -> Kernels:
        """The kernels of a step of a composed impl beside the library of a backend."""
        assert self.kernels.composed is not None  # checked when the file was read
        table: dict[str, Kernels] = getattr(self.kernels.composed, step)
        return table[backend] if backend in table else table["default"]

    def steps(self, impl: str) -> dict[str, Kernels]:
        """Every step with kernels for an impl, by its name; of a wire format as in `quantize.int8`."""
        tables: dict[str, Spec] = {"": self.kernels, **{f".{name}": t for name, t in self.kernels.wires.items()}}
        return {
            f"{step}{wire}": getattr(table, step).get(impl, getattr(table, step)["default"])
            for wire, table in tables.items()
            for step in type(table).model_fields
            if step not in ("wires", "composed") and getattr(table, step)
        }


def _check_vendors(name: str, impl: Impl) -> None:
    """Vendors that there are; of an impl that is a backend the one whose devices it joins."""
    for index, vendor in enumerate(impl.vendors):
        if vendor not in VENDORS:
            raise FieldError(f"impls.{name}.vendors[{index}]", one_of(VENDORS), vendor)
    if name in BACKENDS and impl.vendors != (BACKENDS[name].vendor,):
        why = f"should be [{BACKENDS[name].vendor}]: another vendor's library is a backend of its own"
        raise FieldError(f"impls.{name}.vendors", why, list(impl.vendors))


def _check_carrier(name: str, impl: Impl) -> None:
    """Messages are a composed impl's; through the host they take what no formula knows."""
    if impl.carrier != "library" and not impl.is_composed:
        raise FieldError(f"impls.{name}.carrier", "belongs to an impl of kind composed", impl.carrier)
    if impl.is_through_host and not impl.needs_table:
        why = "hosts differ, and no formula knows them, so it needs its table: needs_table: true"
        raise FieldError(f"impls.{name}", why)


def _check_limit(name: str, impl: Impl, algorithm: str, most: int) -> None:
    """A limit of what an impl does by one of its algorithms."""
    where = f"impls.{name}.max_message_bytes_of.{algorithm}"
    if algorithm not in (impl.algorithms or _ALGORITHMS):
        raise FieldError(where, one_of(sorted(impl.algorithms or _ALGORITHMS)), algorithm)
    if most < 1:
        raise FieldError(where, "a positive whole number is expected", most)


def _check_formats(name: str, impl: Impl) -> None:
    """Wire formats and columns of a scale that there are."""
    for field, given, accepted in (
        ("wires", impl.wires, WIRE_NAMES),
        ("scale_groups", impl.scale_groups, SCALE_GROUPS),
    ):
        for index, value in enumerate(given or ()):
            if value not in accepted:
                raise FieldError(f"impls.{name}.{field}[{index}]", one_of(accepted), value)


def _check_op(executor: Executor, name: str, capability: OpCapability) -> None:
    """An op that is listed must have a record, impls that are listed, and what those need to perform it."""
    kind = KINDS.get(name)
    if kind is None:
        raise FieldError("ops", f"no such op; {did_you_mean(name, KINDS)}", name)
    if kind.wire is not None:
        given = executor.kernels.wires.get(kind.wire.name, WireKernels())
        for step in (step.step for way in kind.ways.values() for step in way.passes):
            if not getattr(given, step):
                raise FieldError(f"kernels.wires.{kind.wire.name}.{step}", f"is missing: {name} takes this step")
    for each in capability.impls:
        impl = executor.impls.get(each)
        if impl is None:
            raise FieldError(f"ops.{name}.impls", f"no such impl; {did_you_mean(each, executor.impls)}", each)
        # A record says of commplan's own kernels who launches them; of others' nothing is known but their price.
        lacks_kernel = impl.is_own and (kind.kernel is None or (impl.fuses_norm and not kind.kernel.norm))
        if impl.is_composed:
            _check_composed(executor, name, each)
        if (impl.kind == "one_kernel" and lacks_kernel) or (impl.kind == "peer_to_peer" and kind.rounds is None):
            raise FieldError(f"ops.{name}.impls", f"the record of {name} has no such kernel", each)


def _check_composed(executor: Executor, name: str, impl: str) -> None:
    """An op by a composed impl has a way by whole messages, and the kernels of every step are known."""
    kind, given = KINDS[name], executor.kernels.composed
    if not kind.composed_algorithms:
        raise FieldError(f"ops.{name}.impls", f"the record of {name} has no way by kernels around whole messages", impl)
    for step in (step.step for algorithm in kind.composed_algorithms for step in kind.way(algorithm).passes):
        if given is None or not getattr(given, step):
            raise FieldError(f"kernels.composed.{step}", f"is missing: {name} by {impl} takes this step")


def _check_refusals(executor: Executor) -> None:
    """What is refused names ops that there are and impls that are listed: one of them at least."""
    for op in (*executor.absent, *(refusal.op for refusal in executor.refusals if refusal.op is not None)):
        if op not in KINDS:
            raise FieldError("refusals", f"no such op; {did_you_mean(op, KINDS)}", op)
    for index, refusal in enumerate(executor.refusals):
        if refusal.op is None and not refusal.impls and not refusal.algorithms:
            raise FieldError(f"refusals[{index}]", "should name an op, impls or algorithms")
        for algorithm in refusal.algorithms or ():
            if algorithm not in _ALGORITHMS:
                why = f"no such algorithm; {did_you_mean(algorithm, _ALGORITHMS)}"
                raise FieldError(f"refusals[{index}].algorithms", why, algorithm)
        for impl in refusal.impls or ():
            if impl not in executor.impls:
                why = f"no such impl; {did_you_mean(impl, executor.impls)}"
                raise FieldError(f"refusals[{index}].impls", why, impl)


def _check_stock(executor: Executor) -> None:
    """A server says what it does by itself, by impls that are listed; what is none names the one it stands for."""
    stock, stands_for = executor.stock, executor.stands_for
    if (stock is None) == (stands_for is None):
        why = "a server says what it does by itself; an executor that is none names one in `stands_for`"
        raise FieldError("stock", why)
    if stands_for is not None and stands_for not in executor_names():
        raise FieldError("stands_for", f"no such executor; {did_you_mean(stands_for, executor_names())}", stands_for)
    for part in ("sums", "fusions") if stock is not None else ():
        for index, rule in enumerate(getattr(stock, part)):
            if rule.impl not in executor.ops[ALL_REDUCE.name].impls:
                known = did_you_mean(rule.impl, executor.ops[ALL_REDUCE.name].impls)
                raise FieldError(f"stock.{part}[{index}].impl", f"no such impl of all_reduce; {known}", rule.impl)


@cache
def load_executor(name: str) -> Executor:
    """The executor of that name; raises InputError with the accepted ones."""
    path = executor_path(name)
    return build(Executor, read_mapping(path), str(path))


def server_of(executor: Executor) -> Executor:
    """The executor itself where it is a server, else the one it stands for; raises InputError where that is none."""
    if executor.stands_for is None:
        return executor
    server = load_executor(executor.stands_for)
    if server.stock is None:
        file = str(executor_path(executor.name))
        raise InputError("is no server either", file=file, field="stands_for", value=executor.stands_for)
    return server


__all__ = ["Executor", "Host", "Impl", "Kernel", "executor_names", "load_executor", "server_of"]
