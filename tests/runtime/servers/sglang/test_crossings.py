"""What a plan has between two blocks of a server, rows in shards above all: without a server, and without kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from commplan.planner.strategy.file import LayerOps, RangePlan, StrategyFile
from commplan.runtime.bound.counts import Counters
from commplan.runtime.bound.program import Program
from commplan.runtime.errors import BoundaryError
from commplan.runtime.servers.executed import of_rank
from commplan.runtime.servers.forward import Forwards
from commplan.runtime.servers.sglang.binding import Binding
from commplan.runtime.servers.sglang.fused_reads import FinalNorm, FusedSum, LateLatents, PlannedRead
from commplan.runtime.servers.sglang.stages import Deferral, PlannedStages

from .fakes import NONE, PLAIN, FakeGroup, strategy
from .plans import FOLD, GATHER_ROWS, SCATTER, TWO_STEPS_FOLD, late

SHARDS = LayerOps(GATHER_ROWS, SCATTER, GATHER_ROWS, SCATTER)
LAST = replace(SHARDS, mlp_out=TWO_STEPS_FOLD)
SCATTERED = RangePlan(1, 16, SCATTER, (SHARDS, LAST), NONE)
LATE = RangePlan(1, 16, SCATTER, (replace(SHARDS, attn_in=late(0)), replace(LAST, attn_in=late(1))), NONE)
FOLDED = RangePlan(1, 16, PLAIN, (LayerOps(NONE, SCATTER, GATHER_ROWS, FOLD), LayerOps(NONE, PLAIN, NONE, PLAIN)), NONE)
T, S = 3, 2  # this is rank 0 of two, so its shard has two of three rows
X, WHOLE = torch.ones(T, 4), torch.full((T, 4), 2.0)
SHARD = WHOLE[:S]


class Doubling(nn.Module):
    """A norm that is easy to see, called as SGLang's are."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        return 2 * x if residual is None else (2 * (x + residual), x + residual)


NORM = Doubling()


def file_of(plan: RangePlan) -> StrategyFile:
    file = strategy(modes={"prefill": (plan,), "decode": (plan,)})
    return replace(file, model=replace(file.model, latent_width=2))


def forwards(plan: RangePlan) -> Forwards:
    """Under a plan whose sums give their input, cut to a shard where they scatter, and whose gathers double a shard."""
    file = file_of(plan)

    def summed(bound: Any) -> Any:
        after = bound.place.after.hidden
        return replace(bound, sum=lambda x, sizes: x[: sizes.of(after)])

    def gathered(bound: Any) -> Any:
        return replace(bound, run=lambda x, sizes: torch.cat([x, x])[: sizes.total])

    def changed(program: Program) -> Program:
        layers = tuple(
            replace(
                layer,
                attn_in=gathered(layer.attn_in),
                attn_out=summed(layer.attn_out),
                mlp_in=gathered(layer.mlp_in),
                mlp_out=summed(layer.mlp_out),
            )
            for layer in program.layers
        )
        return replace(program, layers=layers)

    def bind(counters: Counters) -> dict[str, tuple[Program, ...]]:
        programs = Binding(file, FakeGroup(), FakeGroup(), torch.device("cpu")).programs(counters)
        return {mode: tuple(map(changed, of)) for mode, of in programs.items()}

    return Forwards(file, bind)


def ran(now: Forwards) -> dict[tuple[int | None, str], tuple[int, int]]:
    return {(op["layer"], op["boundary"]): (op["calls"], op["rows"]) for op in of_rank(now)["ops"]}


def test_behind_a_reduce_scatter_the_norm_is_on_the_shard_and_the_ffn_gets_all_rows() -> None:
    now = forwards(SCATTERED)
    with now.serving(), now.forward("prefill", T):
        rows, residual = FusedSum(now, 0, "attn_out")(X.clone(), SHARD.clone(), None, NORM)
    assert torch.equal(residual, torch.full((S, 4), 3.0))
    assert torch.equal(rows, torch.full((T, 4), 6.0))
    assert ran(now) == {(0, "attn_out"): (1, T), (0, "mlp_in"): (1, S)}


def test_a_whole_residual_is_cut_to_the_shard() -> None:
    now = forwards(FOLDED)
    with now.forward("prefill", T):
        _, residual = FusedSum(now, 0, "attn_out")(X.clone(), WHOLE.clone(), None, NORM)
    assert torch.equal(residual, torch.full((S, 4), 3.0))


def test_a_fold_carries_the_residual_in_the_sum_and_leaves_no_memory_to_the_next_mlp() -> None:
    now = forwards(FOLDED)
    partial = X.clone()
    with now.forward("prefill", T):
        rows, residual = FusedSum(now, 0, "mlp_out")(partial, SHARD.clone(), None, NORM)
    assert residual.tolist() == [[3.0] * 4, [3.0] * 4, [1.0] * 4]  # the third row is another rank's to add
    assert torch.equal(rows, 2 * residual)
    assert residual.data_ptr() != partial.data_ptr()


def test_an_ffn_leaves_its_sum_where_rows_go_into_shards_or_come_out_of_them() -> None:
    now = forwards(FOLDED)
    with now.forward("prefill", T):
        assert Deferral(now, 0)(None) is True
    with forwards(replace(FOLDED, layers=(FOLDED.layers[1],) * 2)).forward("prefill", T) as _:
        pass
    plain = forwards(replace(FOLDED, layers=(FOLDED.layers[1],) * 2))
    with plain.forward("prefill", T):
        assert Deferral(plain, 0)(None) is False
        assert FusedSum(plain, 0, "attn_out")(X, WHOLE, None, NORM) is None


def test_the_last_sum_brings_all_rows_to_the_head() -> None:
    now = forwards(SCATTERED)
    with now.serving(), now.forward("prefill", T):
        assert now.sum(1, "mlp_out", X) is X
        rows, _ = FinalNorm(now, 1, NORM)(X.clone(), SHARD.clone())
    assert rows.shape == (T, 4)
    assert ran(now) == {(1, "mlp_out"): (1, T)}


def test_the_embedding_in_shards_is_gathered_behind_the_first_norm() -> None:
    class Read:
        is_plain_norm = True

        def read(self, residual: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
            return norm(residual), residual

    now = forwards(SCATTERED)
    planned = PlannedRead(Read(), first=now.entered_first)
    assert planned.is_plain_norm
    with now.serving(), now.forward("prefill", T):
        rows, residual = planned.read(SHARD, NORM)
        with pytest.raises(BoundaryError, match="holds 3 rows, planned 2"):
            planned.read(WHOLE, NORM)
    assert residual is SHARD
    assert torch.equal(rows, torch.full((T, 4), 4.0))
    assert ran(now) == {(0, "attn_in"): (1, S)}


# ---- latents ---------------------------------------------------------------------------------------------------------


class Inputs:
    """SGLang's AttentionInputs, as far as the hook looks at it."""

    qkv_latent_: Tensor | None = None

    def fetch(self) -> Tensor:
        if self.qkv_latent_ is None:
            self.qkv_latent_ = torch.ones(S, 2)
        return self.qkv_latent_


def test_of_a_late_gather_attention_gets_the_shard_and_its_latents_are_gathered_once() -> None:
    now, inputs = forwards(LATE), Inputs()
    hook = LateLatents(now).around_fetch
    with now.serving(), now.forward("prefill", T):
        rows, _ = FusedSum(now, 0, "mlp_out")(X.clone(), SHARD.clone(), None, NORM)
        assert rows.shape == (S, 4)
        latents = hook(Inputs.fetch, inputs)
        assert latents.shape == (T, 2)
        assert hook(Inputs.fetch, inputs) is latents
    assert ran(now) == {(0, "mlp_out"): (1, T), (1, "attn_in"): (1, S)}


def test_latents_of_an_early_gather_are_left_alone() -> None:
    now, inputs = forwards(SCATTERED), Inputs()
    with now.serving(), now.forward("prefill", T):
        assert LateLatents(now).around_fetch(Inputs.fetch, inputs).shape == (S, 2)
    assert ran(now) == {}


@pytest.mark.parametrize("crossed", [(0, "mlp_out"), (1, "attn_out")])
def test_an_attention_that_projects_no_latents_is_an_error(crossed: tuple[int, str]) -> None:
    now = forwards(LATE)

    def without_latents() -> None:
        with now.forward("prefill", T):
            FusedSum(now, 0, "mlp_out")(X.clone(), SHARD.clone(), None, NORM)
            if crossed[0]:
                FusedSum(now, *crossed)(X.clone(), SHARD.clone(), None, NORM)

    with pytest.raises(BoundaryError, match="did not project its latents"):
        without_latents()
    with now.forward("prefill", T):
        pass  # and the next forward owes nothing


def test_latents_of_other_rows_are_an_error() -> None:
    now = forwards(LATE)
    with now.forward("prefill", T):
        FusedSum(now, 0, "mlp_out")(X.clone(), SHARD.clone(), None, NORM)
        with pytest.raises(BoundaryError, match="latents of 3 rows in a shard of 2"):
            now.latents(torch.ones(T, 2))


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_a_residual_in_another_layout_is_an_error() -> None:
    now = forwards(SCATTERED)
    with now.forward("prefill", T), pytest.raises(BoundaryError, match="a residual of 3, planned 2"):
        FusedSum(now, 0, "attn_out")(X, WHOLE, None, NORM)


def test_more_than_a_sum_is_an_error_where_rows_are_in_shards() -> None:
    now = forwards(SCATTERED)
    with now.forward("prefill", T), pytest.raises(BoundaryError, match="which is more than a sum"):
        FusedSum(now, 0, "mlp_out")(object(), SHARD, None, NORM)


@pytest.mark.parametrize("boundary", ["attn_out", "mlp_out"])
def test_a_sum_into_shards_is_never_run_alone(boundary: str) -> None:
    now = forwards(SCATTERED)
    with now.forward("prefill", T), pytest.raises(BoundaryError, match="was asked for alone"):
        now.sum(0, boundary, X)


def test_only_what_the_plan_has_is_hooked() -> None:
    for plan, latents, embedding, places in (
        (SCATTERED, False, True, {(0, "attn_out"), (0, "mlp_out"), (1, "attn_out"), (1, "mlp_out")}),
        (LATE, True, True, {(0, "attn_out"), (0, "mlp_out"), (1, "attn_out"), (1, "mlp_out")}),
        (FOLDED, False, False, {(0, "attn_out"), (0, "mlp_out")}),
        (replace(FOLDED, layers=(FOLDED.layers[1],) * 2), False, False, set()),
    ):
        stages = PlannedStages(file_of(plan), forwards(plan))
        assert (bool(stages.table()), stages.scatters_embedding, stages.crossed_places) == (latents, embedding, places)


def test_padding_is_of_the_plan_alone() -> None:
    """One token on two ranks: a shard of one row on each, and all that comes out is that token."""
    now = forwards(SCATTERED)
    with now.forward("prefill", 1):
        rows, residual = FusedSum(now, 0, "attn_out")(X[:1].clone(), WHOLE[:1].clone(), None, NORM)
    assert rows.shape == residual.shape == (1, 4)
