"""Executors: who runs a plan, and exactly which ops it can run. One YAML file each, read into an Executor.

Capabilities are data: the planner prunes its graph with them, the validator refuses files with them, and both give the
reason that stands in the file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..errors import InputError, did_you_mean
from ..layout import Parallelism
from ..ops import Op
from ..spec.base import Count, PositiveInt, Spec, Text, build
from ..yaml_file import read_mapping

EXECUTOR_SCHEMA = "commplan/executor/v1"


class Traffic(Spec):
    """Bytes per element of: the `message` a rank puts in, every rank's copy (`gathered`), its N-th part (`shard`)."""

    message: Count = 0
    gathered: Count = 0
    shard: Count = 0


class Kernel(Spec):
    """One pass over device memory: the bytes it reads and writes."""

    name: Text
    read: Traffic = Traffic()
    write: Traffic = Traffic()

    def bytes(self, elements: float, group_size: int) -> float:
        """Bytes moved for a message of `elements`."""
        per_element = 0.0
        for side in (self.read, self.write):
            per_element += side.message + side.gathered * group_size + side.shard / group_size
        return elements * per_element


Kernels = tuple[Kernel, ...]
_RESIDUAL_OUT = ("attn_out", "mlp_out")  # where a residual is added and a norm follows


class Impl(Spec):
    """Who performs an op, and where it can.

    library       collectives of a library, costed by tables, else by formulas
    peer_to_peer  fused kernels that nobody here has run, costed as launches and bytes
    one_kernel    kernels of commplan's own: an op is one launch, costed by a table of its own and by nothing else
    """

    vendors: tuple[Literal["nvidia", "ascend", "cpu"], ...]
    kind: Literal["library", "peer_to_peer", "one_kernel"] = "library"
    needs_table: bool = False  # offered only where a calibration has a table of it
    fuses_norm: bool = False  # does the residual add and the norm that follow as well
    strategies: tuple[Text, ...] | None = None  # offered to these strategies alone
    dtypes: tuple[Text, ...] | None = None  # of the activations; null: any
    max_ranks: PositiveInt | None = None  # of the group it runs over
    max_message_bytes: PositiveInt | None = None  # larger messages it refuses
    topologies: tuple[Text, ...] | None = None  # works inside a node alone; for more than two ranks over these links
    status: Text | None = None

    @model_validator(mode="after")
    def _has_a_price(self) -> Impl:
        if self.kind == "one_kernel" and not self.needs_table:
            raise ValueError("a one_kernel impl has no formula, so it needs its table: needs_table: true")
        return self


class OpCapability(Spec):
    """Impls that perform an op. An op that is not listed cannot run at all."""

    impls: tuple[Text, ...]


class Refusal(Spec):
    """A place where an op cannot run under this executor, and why."""

    op: Text
    boundaries: tuple[Text, ...] | None = None
    modes: tuple[Text, ...] | None = None
    mlp: Literal["dense", "moe"] | None = None
    attn_dp: bool | None = None  # true: only with attention DP; false: only without
    attn_tp: bool | None = None  # true: only where a DP group has several ranks; false: only where it has one
    group: Literal["tp", "attn_tp", "attn_dp"] | None = None
    impl: Text | None = None
    reason: Text

    def covers(self, boundary: str, op: Op, mode: str, mlp: str, parallelism: Parallelism) -> bool:
        """True where the refusal speaks of this op in this place."""
        return (
            op.name == self.op
            and (self.group is None or op.group == self.group)
            and (self.impl is None or op.impl == self.impl)
            and (self.attn_tp is None or self.attn_tp == (parallelism.attn_tp > 1))
            and (self.boundaries is None or boundary in self.boundaries)
            and (self.modes is None or mode in self.modes)
            and (self.mlp is None or (mlp == self.mlp and boundary == "mlp_out"))
            and (self.attn_dp is None or self.attn_dp == (parallelism.attn_dp > 1))
        )


class KernelTables(Spec):
    """Kernels by step, then by impl (`default` for the others), as the executor really launches them."""

    add_norm: dict[str, Kernels]  # residual add + RMSNorm
    norm: dict[str, Kernels]  # RMSNorm alone
    quantize: dict[str, Kernels]  # a message to INT8
    dequantize_sum: dict[str, Kernels]  # gather: every rank's copy to the sum
    reduce_shard: dict[str, Kernels]  # two_shot: dequantise, sum and requantise the shard a rank owns
    dequantize: dict[str, Kernels]  # two_shot: the gathered result

    @model_validator(mode="after")
    def _has_defaults(self) -> KernelTables:
        for step in type(self).model_fields:
            if "default" not in getattr(self, step):
                raise ValueError(f"{step} needs an entry `default`")
        return self


class Executor(Spec):
    """What one executor can run, and the kernels it really launches around the collectives."""

    schema_: Literal["commplan/executor/v1"] = Field(alias="schema")
    name: Text
    description: Text
    loadable: bool  # false: for costs and reports only; a runtime refuses the file
    architectures: tuple[Text, ...] | None  # null: any
    moe_backends: tuple[Literal["tensor_parallel", "all_to_all"], ...] = ("tensor_parallel", "all_to_all")
    impls: dict[str, Impl]
    ops: dict[str, OpCapability]
    absent: dict[str, Text] = Field(default_factory=dict)  # ops that are not listed, and why
    refusals: tuple[Refusal, ...] = ()
    latent_projections: Literal["one_gemm", "one_by_one"]  # q_a and kv_a (and what an indexer reads): fused, or apart
    gathers_only_logit_rows: bool  # head_in gathers the rows that need logits, not all T
    kernels: KernelTables

    def kernels_of(self, step: str, impl: str) -> Kernels:
        """The kernels of a step (`add_norm`, `quantize`, ...) for an impl, or those that stand as `default`."""
        table: dict[str, Kernels] = getattr(self.kernels, step)
        return table[impl] if impl in table else table["default"]

    def cannot_run(self, op: str) -> str:
        """That an op is not listed, and why where that is known."""
        why = f": {self.absent[op]}" if op in self.absent else ""
        return f"executor {self.name} cannot run {op}{why}"

    def refusal(self, boundary: str, op: Op, mode: str, mlp: str, parallelism: Parallelism) -> str | None:
        """Why this op cannot run here under this executor, or None."""
        if not op.kind.is_collective:
            return None
        capability = self.ops.get(op.name)
        if capability is None:
            return f"{self.cannot_run(op.name)}; it runs {', '.join(self.ops)}"
        if op.impl is not None and op.impl not in capability.impls:
            return f"executor {self.name} has no impl {op.impl} of {op.name}; it has {', '.join(capability.impls)}"
        for refusal in self.refusals:
            if refusal.covers(boundary, op, mode, mlp, parallelism):
                return f"executor {self.name}: {refusal.reason}"
        return None

    def impl_refusal(self, boundary: str, op: Op, backend: str, dtype: str, group_size: int) -> str | None:
        """Why the impl of an op cannot perform it here, or None. `backend` is the library of the machine."""
        if op.impl is None or op.impl not in self.impls:
            return None
        name, impl = op.impl, self.impls[op.impl]
        if backend in self.impls and not set(impl.vendors) & set(self.impls[backend].vendors):
            return f"{name} runs on {' and '.join(impl.vendors)}, not where {backend} is the backend"
        if impl.fuses_norm and boundary not in _RESIDUAL_OUT:
            why = f"{name} does the residual add and norm too, and at {boundary} there is no residual yet"
            return f"{why}: use one without"
        if impl.dtypes is not None and dtype not in impl.dtypes:
            return f"{name} takes {' or '.join(impl.dtypes)} activations, not {dtype}"
        if impl.max_ranks is not None and group_size > impl.max_ranks:
            return f"{name} runs over up to {impl.max_ranks} ranks, and this group has {group_size}"
        return None


@cache
def executor_names() -> tuple[str, ...]:
    """Names of the executors in this folder."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))


@cache
def load_executor(name: str) -> Executor:
    """The executor of that name; raises InputError with the accepted ones."""
    if name not in executor_names():
        raise InputError(f"no such executor; {did_you_mean(name, executor_names())}", field="executor", value=name)
    path = Path(__file__).parent / f"{name}.yaml"
    return build(Executor, read_mapping(path), str(path))


__all__ = ["Executor", "Impl", "Kernel", "executor_names", "load_executor"]
