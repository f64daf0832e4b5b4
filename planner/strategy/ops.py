"""An op as it stands at a boundary, and how a strategy file spells it.

An op is a name plus the few parameters that change what it does; what all ops of a name share is its record in
op_kinds.py. Light on purpose: the runtime loads this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import InputError, did_you_mean
from .op_kinds import KINDS
from .op_record import OpKind, Way, Wire
from .words import GROUPS, NUMERICS_CLASSES, RESIDUAL_RULES, GroupName, Numerics, ResidualRule


@dataclass(frozen=True, slots=True, order=True)
class Op:
    """One op as it stands at a boundary.

    `group` is spelled only where attention DP gives a choice; `impl` None means the backend of the file.
    `producer` is the `from` of a latent gather: the boundary that made the shard.
    """

    name: str
    algorithm: str | None = None
    group: GroupName | None = None
    residual: ResidualRule | None = None
    impl: str | None = None
    producer: str | None = None

    @property
    def kind(self) -> OpKind:
        """What all ops of this name share."""
        return KINDS[self.name]

    @property
    def way(self) -> Way:
        """How it is performed: by its algorithm, or in the only way there is."""
        return KINDS[self.name].way(self.algorithm)

    @property
    def wire(self) -> Wire | None:
        """The format in which its rows travel; None: as they are."""
        return KINDS[self.name].wire

    def __str__(self) -> str:
        spelled = spell(self)
        if isinstance(spelled, str):
            return spelled
        ((name, parameters),) = spelled.items()
        return f"{name}({', '.join(f'{k}={v}' for k, v in parameters.items())})"


NONE = Op("none")
SLICE = Op("slice")
FUSED = Op("fused")


def words_of(names: Iterable[str]) -> str:
    """How reports call the wire formats of some ops, as in `INT8 or FP8`; empty where none of them is quantised."""
    kinds = (KINDS[name] for name in names)
    return " or ".join(dict.fromkeys(kind.wire.words for kind in kinds if kind.wire is not None))


def numerics_rank(numerics: Numerics) -> int:
    """0 for exact, 1 for reordered, 2 for quantized."""
    return NUMERICS_CLASSES.index(numerics)


def spell(op: Op) -> str | dict[str, dict[str, str]]:
    """As in a strategy file: the bare name, or `{name: {parameter: value}}`."""
    values = {
        "from": op.producer,
        "algorithm": op.algorithm,
        "group": op.group,
        "residual": op.residual,
        "impl": op.impl,
    }
    given = {key: value for key, value in values.items() if value is not None}
    return {op.name: given} if given else op.name


def parse(value: Any, field: str) -> Op:
    """An op from its spelling; raises InputError with the field and what would be accepted."""
    if isinstance(value, str):
        return _build(value, {}, field)
    if isinstance(value, dict) and len(value) == 1:
        ((name, parameters),) = value.items()
        if parameters is None:
            parameters = {}
        if isinstance(name, str) and isinstance(parameters, dict):
            return _build(name, parameters, field)
    raise InputError("an op is a name, or a mapping of one name to its parameters", field=field, value=value)


def _build(name: str, parameters: dict[str, Any], field: str) -> Op:
    kind = KINDS.get(name)
    if kind is None:
        raise InputError(f"no such op; {did_you_mean(name, KINDS)}", field=field, value=name)
    known = {"algorithm": kind.algorithms or kind.own_algorithms, "group": GROUPS, "residual": RESIDUAL_RULES}
    for key, value in parameters.items():
        where = f"{field}.{name}.{key}"
        if key not in kind.parameters:
            hint = did_you_mean(key, kind.parameters) if kind.parameters else "it takes no parameters"
            raise InputError(f"{name} has no parameter '{key}'; {hint}", field=where)
        if not isinstance(value, str) or value not in known.get(key, (value,)):
            accepted = known.get(key)
            hint = did_you_mean(value, accepted) if accepted else "a name is expected"
            raise InputError(f"not accepted; {hint}", field=where, value=value)
    if kind.algorithms and "algorithm" not in parameters:
        first, *others = kind.algorithms
        shown = " or ".join((f"{{{name}: {{algorithm: {first}}}}}", *others))
        raise InputError(f"{name} needs its algorithm: {shown}", field=field)
    if not kind.algorithms and "algorithm" in parameters and "impl" not in parameters:
        where = f"{field}.{name}.algorithm"
        reason = "an algorithm of commplan's own kernel: name the impl as well, or leave both out"
        raise InputError(reason, field=where, value=parameters["algorithm"])
    return Op(
        name,
        algorithm=parameters.get("algorithm"),
        group=parameters.get("group"),
        residual=parameters.get("residual"),
        impl=parameters.get("impl"),
        producer=parameters.get("from"),
    )
