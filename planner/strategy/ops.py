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
from .op_record import OpKind, Way
from .wire import Error, Wire
from .words import GROUPS, NUMERICS_CLASSES, RESIDUAL_RULES, GroupName, Numerics, ResidualRule, ScaleGroup


@dataclass(frozen=True, slots=True, order=True)
class Op:
    """One op as it stands at a boundary.

    `group` is spelled only where attention DP gives a choice; `impl` None means the backend of the file.
    `producer` is the `from` of a latent gather: the boundary that made the shard. `wire_name` and `scale_group` are
    said by ops of a name that travels in several formats. `pieces`: the runs of rows that a composed impl works on side
    by side; None where it takes them at once.
    """

    name: str
    algorithm: str | None = None
    group: GroupName | None = None
    residual: ResidualRule | None = None
    impl: str | None = None
    producer: str | None = None
    wire_name: str | None = None
    scale_group: ScaleGroup | None = None
    pieces: int | None = None

    @property
    def kind(self) -> OpKind:
        """What all ops of this name share."""
        return KINDS[self.name]

    @property
    def way(self) -> Way:
        """How it is performed: by its algorithm, or in the only way there is."""
        return KINDS[self.name].way(self.algorithm)

    @property
    def is_pushed(self) -> bool:
        """Do its rows travel while the GEMM that makes them goes on?"""
        return self.algorithm is not None and self.way.peers == "pushed"

    @property
    def wire(self) -> Wire | None:
        """The format in which its rows travel; None: as they are."""
        return KINDS[self.name].format_of(self.wire_name, self.scale_group)

    @property
    def error(self) -> Error | None:
        """What a sum by it is expected to lose; None: nothing."""
        if self.wire_name is None or self.scale_group is None:
            return self.way.error
        return KINDS[self.name].errors[self.wire_name, self.scale_group, self.algorithm]

    def __str__(self) -> str:
        spelled = spell(self)
        if isinstance(spelled, str):
            return spelled
        ((name, parameters),) = spelled.items()
        return f"{name}({', '.join(f'{k}={v}' for k, v in parameters.items())})"


MAX_PIECES = 64
"""Of one sum: beyond, a piece is a library call for next to nothing."""
NONE = Op("none")
SLICE = Op("slice")
FUSED = Op("fused")


def words_of(names: Iterable[str], formats: Iterable[str]) -> str:
    """How reports call the wire formats of some ops among those listed, as in `INT8 or FP8`; empty where there are
    none."""
    accepted = tuple(formats)
    found = (wire for name in names for wire in KINDS[name].formats if wire.name in accepted)
    return " or ".join(dict.fromkeys(wire.words for wire in found))


def numerics_rank(numerics: Numerics) -> int:
    """0 for exact, 1 for reordered, 2 for quantized."""
    return NUMERICS_CLASSES.index(numerics)


# ---- files -----------------------------------------------------------------------------------------------------------

_PLAIN = {
    "from": "producer",
    "algorithm": "algorithm",
    "pieces": "pieces",
    "group": "group",
    "residual": "residual",
    "impl": "impl",
}
# Where an op names its format, `group` is the columns of a scale, and the ranks are those that it goes `over`.
_OF_FORMAT = {
    "from": "producer",
    "wire": "wire_name",
    "group": "scale_group",
    "algorithm": "algorithm",
    "pieces": "pieces",
    "over": "group",
    "residual": "residual",
    "impl": "impl",
}


def _parameters(kind: OpKind) -> dict[str, str]:
    """What a file calls the parameters of an op, by the field that each fills."""
    return _OF_FORMAT if kind.wires else _PLAIN


def spell(op: Op) -> str | dict[str, dict[str, str | int]]:
    """As in a strategy file: the bare name, or `{name: {parameter: value}}`."""
    values = {key: getattr(op, field) for key, field in _parameters(op.kind).items()}
    given = {key: _spelled(value) for key, value in values.items() if value is not None}
    return {op.name: given} if given else op.name


def _spelled(value: str | int) -> str | int:
    return int(value) if isinstance(value, str) and value.isdigit() else value


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
    fields, given = _parameters(kind), dict[str, Any]()
    for key, value in parameters.items():
        if key not in kind.parameters:
            hint = did_you_mean(key, kind.parameters) if kind.parameters else "it takes no parameters"
            raise InputError(f"{name} has no parameter '{key}'; {hint}", field=f"{field}.{name}.{key}")
        given[fields[key]] = _value(kind, key, fields[key], value, f"{field}.{name}.{key}")
    _check_algorithm(kind, given, field)
    _check_format(kind, given, field)
    return Op(name, **given)


def _value(kind: OpKind, key: str, name: str, value: Any, where: str) -> str | int | None:
    """The value of one parameter, as its field has it."""
    if name == "pieces":
        return _pieces(value, where)
    known: dict[str, Iterable[str]] = {
        "algorithm": kind.known_algorithms,
        "group": GROUPS,
        "residual": RESIDUAL_RULES,
        "wire_name": kind.wires,
        "scale_group": dict.fromkeys(group for _, group, _ in kind.errors),
    }
    accepted = tuple(known[name]) if name in known else None
    text = str(value) if type(value) is int and name == "scale_group" else value
    if isinstance(text, str) and (accepted is None or text in accepted):
        return text
    hint = did_you_mean(text, accepted) if accepted else "a name is expected"
    if key == "group" and name == "scale_group" and text in GROUPS:
        hint = f"`group` is the columns of a scale ({', '.join(accepted or ())}); the ranks are named by `over`"
    raise InputError(f"not accepted; {hint}", field=where, value=value)


def _pieces(value: Any, where: str) -> int | None:
    """Into how many pieces the rows are cut; one is what is not said."""
    if type(value) is not int or not 1 <= value <= MAX_PIECES:
        raise InputError(f"not accepted; a whole number from 1 to {MAX_PIECES} is expected", field=where, value=value)
    return value if value > 1 else None


def _check_algorithm(kind: OpKind, given: dict[str, Any], field: str) -> None:
    """An op that has several says which; one of commplan's own kernels names those."""
    if kind.algorithms and "algorithm" not in given:
        first, *others = kind.algorithms
        shown = " or ".join((f"{{{kind.name}: {{algorithm: {first}}}}}", *others))
        raise InputError(f"{kind.name} needs its algorithm: {shown}", field=field)
    if not kind.algorithms and "algorithm" in given and "impl" not in given:
        where = f"{field}.{kind.name}.algorithm"
        reason = "an algorithm of commplan's own kernels: name the impl as well, or leave both out"
        raise InputError(reason, field=where, value=given["algorithm"])


def _check_format(kind: OpKind, given: dict[str, Any], field: str) -> None:
    """An op that travels in several formats says which, and by how many columns it is scaled."""
    if not kind.wires:
        return
    for key, name, example in (("wire", "wire_name", "int8"), ("group", "scale_group", "64")):
        if name not in given:
            why = f"{kind.name} needs its {key}, as in {{{kind.name}: {{{key}: {example}, ...}}}}"
            raise InputError(why, field=f"{field}.{kind.name}.{key}", kind="missing_key")
    wire, group = given["wire_name"], given["scale_group"]
    if group not in kind.groups_of(wire):
        accepted = ", ".join(kind.groups_of(wire))
        raise InputError(f"{wire} is scaled by {accepted} columns", field=f"{field}.{kind.name}.group", value=group)
