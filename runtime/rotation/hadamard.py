"""Hadamard matrices, and rotations of hidden rows that are made of them.

A rotation is orthogonal, so lengths stay and it can be undone; every entry of a Hadamard matrix has the same size, so a
column that stands out is spread evenly over its block.

Shapes: H hidden, B columns of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..errors import RefusedError

_CHUNK = 2**22  # elements that are held in fp64 at a time
_LARGEST_CORE = 1024  # rows of a Hadamard matrix that is no power of two
_TWO = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)


def hadamard(size: int) -> Tensor | None:
    """Orthogonal [size, size] whose entries are all +-1/sqrt(size), in fp64; None where none is known here."""
    found = factors(size)
    return None if found is None else torch.kron(*found) / math.sqrt(size)


def factors(size: int) -> tuple[Tensor, Tensor] | None:
    """Two matrices of +-1, of about equal size, whose Kronecker product is `hadamard(size)` times sqrt(size).

    Sylvester's doubling over the two constructions of Paley, which between them reach nearly every width of a model.
    """
    if size < 1 or (right := _smallest_core(size)) is None:
        return None
    left = torch.ones(1, 1, dtype=torch.float64)
    while left.shape[0] * right.shape[0] < size:
        if left.shape[0] <= right.shape[0]:
            left = torch.kron(_TWO, left)
        else:
            right = torch.kron(_TWO, right)
    return left, right


def largest_power_of_two(width: int) -> int:
    """The largest one that divides a width."""
    return width & -width


def blocks_of(width: int) -> list[int]:
    """Every block, of 2 columns on, that `--block` may name for a width."""
    return [2**power for power in range(1, largest_power_of_two(width).bit_length())]


@dataclass(frozen=True)
class Rotation:
    """Q = D K: random signs, then Hadamard matrices down the diagonal, one for every `block` columns.

    block  columns of each; the width for one matrix over the whole row
    seed   of the signs, which keep columns that run alike from adding up in one; None: no signs
    """

    width: int
    block: int
    seed: int | None = 0
    matrices: tuple[Tensor, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fits = self.block in (*blocks_of(self.width), self.width)
        made = factors(self.block) if fits and self.block > 1 else None
        if made is None:
            raise RefusedError(no_block(self.width), field="--block", value=self.block)
        object.__setattr__(self, "matrices", made)

    @cached_property
    def signs(self) -> Tensor:
        """+-1 for each column, in fp64."""
        if self.seed is None:
            return torch.ones(self.width, dtype=torch.float64)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(0, 2, (self.width,), generator=generator).double() * 2 - 1

    def apply(self, rows: Tensor) -> Tensor:
        """[..., H] times Q, in fp64."""
        left, right = self.matrices
        turned: Tensor = left.T @ self._blocks(rows.double() * self.signs) @ right
        return turned.reshape(rows.shape) / math.sqrt(self.block)

    def undo(self, rows: Tensor) -> Tensor:
        """[..., H] times Q transposed, in fp64."""
        left, right = self.matrices
        turned: Tensor = left @ self._blocks(rows.double()) @ right.T
        return turned.reshape(rows.shape) * self.signs / math.sqrt(self.block)

    def _blocks(self, rows: Tensor) -> Tensor:
        """[..., H] as [..., blocks, of the first factor, of the second]."""
        left, right = self.matrices
        return rows.reshape(*rows.shape[:-1], self.width // self.block, left.shape[0], right.shape[0])

    def fold(self, weight: Tensor, axis: int, norm_H: Tensor | None = None) -> Tensor:
        """A weight with Q along the axis that meets the stream, in the weight's type.

        Embedding and writers `y -> y Q` and readers `W diag(norm) n(x) = W diag(norm) Q n(x Q)` are alike in that. In
        fp64, a few rows at a time.
        """
        lines = weight.movedim(axis, -1)
        shape = lines.shape
        lines = lines.reshape(-1, self.width)
        out = torch.empty_like(lines, memory_format=torch.contiguous_format)
        step = max(1, _CHUNK // self.width)
        for first in range(0, lines.shape[0], step):
            part = lines[first : first + step].double()
            out[first : first + step] = self.apply(part if norm_H is None else part * norm_H.double())
        return out.reshape(shape).movedim(-1, axis).contiguous()


def no_block(width: int) -> str:
    """What is said of a block that a width does not have."""
    sizes = ", ".join(map(str, blocks_of(width)))
    whole = ", or full" if hadamard(width) is not None and width not in blocks_of(width) else ""
    if not sizes:
        return f"hidden_size {width} is odd, and has no blocks"
    return f"a block that divides hidden_size {width} is expected: {sizes}{whole}"


def _smallest_core(size: int) -> Tensor | None:
    """A Hadamard matrix of +-1 that doubles into one of this size, in fp64."""
    core = size // largest_power_of_two(size)
    while core <= min(size, _LARGEST_CORE):
        if size % core == 0 and (found := _core(core)) is not None:
            return found
        core *= 2
    return None


def _core(size: int) -> Tensor | None:
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if size % 4:
        return None
    if _is_prime(size - 1):  # 3 modulo 4
        return _bordered(size - 1, -1) + torch.eye(size, dtype=torch.float64)
    half = size // 2
    if half % 4 == 2 and _is_prime(half - 1):  # 1 modulo 4
        corner = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(_bordered(half - 1, 1), _TWO) + torch.kron(torch.eye(half, dtype=torch.float64), corner)
    return None


def _bordered(prime: int, below: int) -> Tensor:
    """Jacobsthal's matrix of quadratic residues in a border of ones; `below`: the sign of its first column."""
    squares = {number * number % prime for number in range(1, prime)}
    residue = torch.tensor([0.0] + [1.0 if n in squares else -1.0 for n in range(1, prime)], dtype=torch.float64)
    places = torch.arange(prime)
    made = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    made[0, 1:] = 1.0
    made[1:, 0] = below
    made[1:, 1:] = residue[(places[:, None] - places[None, :]) % prime]
    return made


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
