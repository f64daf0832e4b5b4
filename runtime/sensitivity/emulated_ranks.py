"""The partial sums of N tensor-parallel ranks, in one process: what each would send at attn_out and mlp_out.

A rank of the runtime holds a slice of the inputs of every projection whose output is partial, so its partial sum is
that projection on those columns alone. Here the block runs once for each rank with the other columns' weights zeroed;
where a block ends in one projection, only that is done N times. Biases are rank 0's, as in the runtime. What is left
apart is the order of float additions inside a GEMM. One process, because then any checkpoint that transformers loads on
one device can be measured, and a perturbed forward starts at its layer; tests hold it against the runtime's ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RefusedError

Sum = Callable[[Tensor], Tensor]
"""The partials of all ranks [N, T, H] to their sum [T, H]."""

_PARTIAL = ("o_proj", "out_proj", "down_proj")  # inputs are sliced, so the output is partial


class EmulatedRanks:
    """Sums at the boundaries of a loaded model, done as N ranks would. `sums` are those that are not exact now."""

    def __init__(self, model: Any, ranks: int) -> None:
        self.model, self.ranks = model, ranks
        self.sums: dict[tuple[int, str], Sum] = {}
        self.places = [(index, b) for index in range(len(model.model.layers)) for b in ("attn_out", "mlp_out")]
        for index, boundary in self.places:
            self._watch(index, boundary)

    @contextmanager
    def with_sums(self, sums: dict[tuple[int, str], Sum]) -> Iterator[None]:
        """Forwards inside sum by these at the places they name, exactly at all others."""
        before, self.sums = self.sums, sums
        try:
            yield
        finally:
            self.sums = before

    def everywhere(self, sum_: Sum) -> dict[tuple[int, str], Sum]:
        """The same sum at every place."""
        return dict.fromkeys(self.places, sum_)

    def _watch(self, index: int, boundary: str) -> None:
        block = block_at(self.model.model.layers[index], boundary)
        partial = [(owner, name) for owner, name, _ in _partial_weights(block)]
        if not partial:
            raise RefusedError(
                f"{type(block).__name__} has none of {', '.join(_PARTIAL)}, so what its ranks would send is not known",
                field=f"layers.{index}.{boundary}",
            )
        _check_slices(block, self.ranks, f"layers.{index}.{boundary}")
        last = partial[0][0]
        if len(partial) == 1 and isinstance(last, nn.Linear):
            self._split(last, (index, boundary))
        else:
            self._repeat(block, (index, boundary))

    def _split(self, linear: nn.Linear, place: tuple[int, str]) -> None:
        """A block that ends in one projection: that projection, slice by slice."""
        whole = linear.forward

        def forward(x: Tensor) -> Tensor:
            sum_ = self.sums.get(place)
            if sum_ is None:
                return whole(x)
            slices = zip(x.chunk(self.ranks, -1), linear.weight.chunk(self.ranks, -1), strict=True)
            parts = [nn.functional.linear(a, w, linear.bias if r == 0 else None) for r, (a, w) in enumerate(slices)]
            return _summed(sum_, torch.stack(parts))

        linear.forward = forward  # type: ignore[method-assign, assignment]

    def _repeat(self, block: nn.Module, place: tuple[int, str]) -> None:
        """Any other block: all of it for each rank, with what other ranks hold at zero."""
        whole = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            sum_ = self.sums.get(place)
            if sum_ is None:
                return whole(*args, **kwargs)
            found = []
            for rank in range(self.ranks):
                with _slice_alone(block, rank, self.ranks):
                    found.append(whole(*args, **kwargs))
            if not isinstance(found[0], tuple):
                return _summed(sum_, torch.stack(found))
            return (_summed(sum_, torch.stack([each[0] for each in found])), *found[0][1:])

        block.forward = forward


def block_at(layer: nn.Module, boundary: str) -> nn.Module:
    """The block whose output is summed at a boundary."""
    if boundary == "mlp_out":
        return layer.mlp  # type: ignore[return-value]
    return layer.self_attn if hasattr(layer, "self_attn") else layer.linear_attn  # type: ignore[return-value]


def _summed(sum_: Sum, parts_N: Tensor) -> Tensor:
    return sum_(parts_N.flatten(1, -2)).view(parts_N.shape[1:])


def _partial_weights(block: nn.Module) -> Iterator[tuple[nn.Module, str, int]]:
    """(owner, parameter, dim of its inputs) of every weight of a block whose output is partial."""
    for path, module in block.named_modules():
        if path.rpartition(".")[2] in _PARTIAL and isinstance(module, nn.Linear):
            yield module, "weight", -1
        elif isinstance(getattr(module, "down_proj", None), nn.Parameter):  # experts in one tensor
            yield module, "down_proj", -2 if getattr(module, "is_transposed", False) else -1


def _partial_biases(block: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for owner, name, _ in _partial_weights(block):
        bias = "bias" if name == "weight" else f"{name}_bias"
        if isinstance(getattr(owner, bias, None), nn.Parameter):
            yield owner, bias


def _check_slices(block: nn.Module, ranks: int, where: str) -> None:
    for owner, name, dim in _partial_weights(block):
        width = getattr(owner, name).shape[dim]
        if width % ranks:
            raise RefusedError(f"{width} inputs of {name} cannot be cut for {ranks} ranks", field=where, value=ranks)


@contextmanager
def _slice_alone(block: nn.Module, rank: int, ranks: int) -> Iterator[None]:
    """The block with the weights of one rank: those of the others are zero while this lasts."""
    held = []
    try:
        for owner, name, dim in _partial_weights(block):
            weight = getattr(owner, name)
            each = weight.shape[dim] // ranks
            alone = torch.zeros_like(weight)
            alone.narrow(dim, rank * each, each).copy_(weight.narrow(dim, rank * each, each))
            held.append((owner, name, weight))
            setattr(owner, name, nn.Parameter(alone, requires_grad=False))
        for owner, name in _partial_biases(block) if rank else ():
            bias = getattr(owner, name)
            held.append((owner, name, bias))
            setattr(owner, name, nn.Parameter(torch.zeros_like(bias), requires_grad=False))
        yield
    finally:
        for owner, name, parameter in held:
            setattr(owner, name, parameter)
