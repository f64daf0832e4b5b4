"""Sums with the add and the norm behind them, as a server asks for them: without a server, and without kernels."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from commplan.runtime.bound.counts import Counters
from commplan.runtime.bound.program import Program
from commplan.runtime.errors import BoundaryError
from commplan.runtime.servers.executed import of_rank
from commplan.runtime.servers.forward import Forwards
from commplan.runtime.servers.sglang.fused_reads import FinalNorm, FusedSum
from commplan.runtime.servers.sglang.next_linears import next_linears
from commplan.runtime.servers.sglang.stages import Deferral

from .fakes import PLAIN, a_range, bind_to, strategy

FILE = strategy(modes={"prefill": (a_range(1, 16, PLAIN),), "decode": (a_range(1, 8, PLAIN),)})
X, RESIDUAL = torch.ones(3, 4), torch.full((3, 4), 2.0)
NORM = nn.Identity()


def forwards(*fused: tuple[int, str], push: Any = None, read_ahead: Any = None) -> Forwards:
    """Two layers; the op at these places does the norm too: here it gives the sum, and what it adds up to."""

    def norm(x: Tensor, residual: Tensor, sizes: Any, module: nn.Module, owned: bool) -> tuple[Tensor, Tensor]:
        assert module is NORM and owned
        return x, x + residual

    found = {"norm": norm, "push": push, "read_ahead": read_ahead}

    def changed(program: Program) -> Program:
        layers = [
            replace(layer, **{b: replace(getattr(layer, b), **found) for at, b in fused if at == index})
            for index, layer in enumerate(program.layers)
        ]
        return replace(program, layers=tuple(layers))

    def bind(counters: Counters) -> dict[str, tuple[Program, ...]]:
        return {mode: tuple(map(changed, of)) for mode, of in bind_to(FILE)(counters).items()}

    return Forwards(FILE, bind)


def ran(now: Forwards) -> dict[tuple[int | None, str], int]:
    return {(op["layer"], op["boundary"]): op["calls"] for op in of_rank(now)["ops"] if op["calls"]}


def test_a_read_runs_the_op_that_does_the_norm_and_counts_it() -> None:
    now = forwards((0, "attn_out"))
    with now.serving(), now.forward("prefill", 3):
        normed, residual = FusedSum(now, 0, "attn_out")(X, RESIDUAL, None, NORM)
    assert torch.equal(normed, X) and torch.equal(residual, X + RESIDUAL)
    assert ran(now) == {(0, "attn_out"): 1}


def test_a_read_leaves_every_other_op_to_the_server() -> None:
    now = forwards((0, "attn_out"))
    with now.serving(), now.forward("prefill", 3):
        assert FusedSum(now, 1, "attn_out")(X, RESIDUAL, None, NORM) is None
        assert FusedSum(now, 0, "mlp_out")(object(), RESIDUAL, None, NORM) is None  # more than a sum is owed
    assert ran(now) == {}


def test_an_ffn_leaves_its_sum_where_the_op_does_the_norm_but_in_the_last_layer() -> None:
    now = forwards((0, "mlp_out"), (1, "mlp_out"))
    with now.forward("prefill", 3):
        assert Deferral(now, 0)(None) is True
        assert Deferral(now, 1)(None) is False
        now.sum(1, "mlp_out", X)
        FinalNorm(now, 1, NORM)(X, RESIDUAL)
    with forwards().forward("prefill", 3) as _:
        pass
    plain = forwards()
    with plain.forward("prefill", 3):
        assert Deferral(plain, 0)(None) is False


def test_the_last_sum_travels_to_the_final_norm() -> None:
    now = forwards((1, "mlp_out"))
    with now.serving(), now.forward("prefill", 3) as forward:
        assert now.sum(1, "mlp_out", X) is X
        assert forward.owed
        normed, residual = FinalNorm(now, 1, NORM)(X, RESIDUAL)
        assert not forward.owed
    assert torch.equal(normed, X) and torch.equal(residual, X + RESIDUAL)
    assert ran(now) == {(1, "mlp_out"): 1}


def test_a_forward_that_ends_with_a_sum_owed_is_an_error() -> None:
    now = forwards((1, "mlp_out"))
    with pytest.raises(BoundaryError, match="the final norm did not come"), now.forward("prefill", 3):
        now.sum(1, "mlp_out", X)


def test_a_sum_that_does_the_norm_is_never_run_alone() -> None:
    now = forwards((0, "attn_out"), (0, "mlp_out"))
    with now.forward("prefill", 3):
        for boundary in ("attn_out", "mlp_out"):
            with pytest.raises(BoundaryError, match="was asked for alone"):
                now.sum(0, boundary, X)


@pytest.mark.parametrize(("partial", "residual"), [(torch.ones(2, 4), RESIDUAL), (X, torch.ones(2, 4))])
def test_rows_that_are_not_those_of_the_forward_are_an_error(partial: Tensor, residual: Tensor) -> None:
    now = forwards((0, "attn_out"))
    with now.forward("prefill", 3), pytest.raises(BoundaryError, match="in a forward of 3 tokens"):
        FusedSum(now, 0, "attn_out")(partial, residual, None, NORM)


def test_a_final_norm_that_is_called_in_another_way_is_an_error() -> None:
    now = forwards((1, "mlp_out"))
    with now.forward("prefill", 3) as forward:
        now.sum(1, "mlp_out", X)
        with pytest.raises(BoundaryError, match="in another way"):
            FinalNorm(now, 1, NORM)(X)
        forward.owed = False


class TwoPieces:
    """In place of Peers: has rows made in two pieces."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, make: Any) -> None:
        for first, last in ((0, 2), (2, len(x))):
            make(first, last)
            self.made.append((first, last))


def test_rows_are_pushed_while_they_are_made_and_then_summed() -> None:
    pieces = TwoPieces()
    now = forwards((0, "attn_out"), push=pieces)
    assert not now.pushes(0, "attn_out"), "outside a forward nothing is planned"
    with now.serving(), now.forward("prefill", 3):
        assert now.pushes(0, "attn_out") and not now.pushes(0, "mlp_out")
        rows = torch.full((3, 4), float("nan"))
        now.push(0, "attn_out", rows, lambda first, last: rows[first:last].fill_(first + 1.0))
        normed, _ = FusedSum(now, 0, "attn_out")(rows, RESIDUAL, None, NORM)
    assert pieces.made == [(0, 2), (2, 3)]
    assert normed[:, 0].tolist() == [1.0, 1.0, 3.0]


def test_rows_that_were_to_be_pushed_and_were_not_are_an_error() -> None:
    now = forwards((0, "attn_out"), (0, "mlp_out"), push=TwoPieces())
    with now.forward("prefill", 3):
        with pytest.raises(BoundaryError, match="were not pushed while they were made"):
            FusedSum(now, 0, "attn_out")(X, RESIDUAL, None, NORM)
        now.push(0, "attn_out", X, lambda *_: None)
        with pytest.raises(BoundaryError, match="were not pushed while they were made"):
            FusedSum(now, 0, "mlp_out")(X, RESIDUAL, None, NORM)
        with pytest.raises(BoundaryError, match="holds 2 rows to push in a forward of 3 tokens"):
            now.push(0, "attn_out", X[:2], lambda *_: None)
        with pytest.raises(BoundaryError, match="holds 3 rows to push"):
            now.push(1, "attn_out", X, lambda *_: None)


def test_a_sum_is_told_the_weights_that_are_read_behind_it() -> None:
    told: list[Any] = []
    weights = {(0, "attn_out"): X, (0, "mlp_out"): RESIDUAL}
    now = forwards((0, "attn_out"), (0, "mlp_out"), (1, "attn_out"), read_ahead=told.append)
    now.next_linears = {place: SimpleNamespace(weight=w) for place, w in weights.items()}
    with now.forward("decode", 3):
        FusedSum(now, 0, "attn_out")(X, RESIDUAL, None, NORM)
        FusedSum(now, 0, "mlp_out")(X, RESIDUAL, None, NORM)
        FusedSum(now, 1, "attn_out")(X, RESIDUAL, None, NORM)
    assert [each is wanted for each, wanted in zip(told, (X, RESIDUAL), strict=True)] == [True, True]


def test_the_linear_behind_a_boundary_is_that_of_the_next_gemm() -> None:
    def module(**parts: Any) -> Any:
        return SimpleNamespace(**parts)

    def linear() -> Any:
        return module(weight=torch.empty(2, 2))

    dense = module(self_attn=module(qkv_proj=linear()), mlp=module(gate_up_proj=linear()))
    experts = module(
        self_attn=module(fused_qkv_a_proj_with_mqa=linear()),
        mlp=module(gate=linear(), shared_experts=module(gate_up_proj=linear())),
    )
    unknown = module(self_attn=module(qkv_proj=module(qweight=torch.empty(2, 2))), mlp=module(experts=linear()))
    model = module(model=module(layers=[dense, experts, unknown]), lm_head=linear())
    found = next_linears(model)
    wanted = {
        (0, "attn_out"): dense.mlp.gate_up_proj,
        (0, "mlp_out"): experts.self_attn.fused_qkv_a_proj_with_mqa,
        (1, "attn_out"): experts.mlp.shared_experts.gate_up_proj,
        (2, "mlp_out"): model.lm_head,
    }
    assert found.keys() == wanted.keys()
    assert all(found[place] is linear for place, linear in wanted.items())
