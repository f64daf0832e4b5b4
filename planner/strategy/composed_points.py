"""How a composed sum is named where it is measured: by what it is told beside its rows.

`int8_all_reduce.gather.4`, `all_reduce.gather.4`: the op, its algorithm, its pieces. Of an op that names its format the
format and the columns of a scale stand between: `quantized_all_reduce.gather.int6.64.4`. Who performs it and how many
ranks is said apart.
"""

from __future__ import annotations

from .errors import InputError
from .op_kinds import KINDS
from .ops import MAX_PIECES, Op
from .words import SCALE_GROUPS, as_word


def spell_point(name: str, algorithm: str, wire: str | None, scale_group: str | None, pieces: int) -> str:
    """The name of a sum to be measured."""
    return ".".join([name, algorithm, *([] if wire is None else [wire, scale_group or ""]), str(pieces)])


def parse_point(text: str, impl: str) -> Op:
    """The sum that a name stands for, by an impl; raises InputError where it stands for none."""
    parts = text.split(".")
    kind = KINDS.get(parts[0])
    wanted = 5 if kind is not None and kind.wires else 3
    if kind is not None and len(parts) == wanted and parts[1] in kind.composed_algorithms:
        format_, pieces = parts[2:-1], parts[-1]
        group = as_word(format_[1], SCALE_GROUPS) if format_ else None
        known = not format_ or (group is not None and (format_[0], group, parts[1]) in kind.errors)
        known &= pieces == "1" or not kind.way(parts[1]).in_one_launch
        if known and pieces.isdecimal() and 1 <= int(pieces) <= MAX_PIECES:
            wire = format_[0] if format_ else None
            cut = int(pieces) if int(pieces) > 1 else None
            return Op(kind.name, algorithm=parts[1], impl=impl, wire_name=wire, scale_group=group, pieces=cut)
    raise InputError("op.algorithm.pieces or op.algorithm.wire.group.pieces is expected", field="point", value=text)
