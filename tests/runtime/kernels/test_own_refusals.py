"""Where collectives of our own cannot run, a plan that names them is refused at load: field, value, reason, way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from commplan.planner.strategy.file import LayerOps, Op, Parallelism, RangePlan, StrategyFile, save
from commplan.runtime.backends import Backend
from commplan.runtime.bound.counts import Place, wire_bytes_per_row
from commplan.runtime.calibration.point_calls import PlainNorm
from commplan.runtime.errors import RefusedError
from commplan.runtime.kernels.peer_impls import (
    KERNEL_LIMITS,
    PEER_IMPLS,
    STAGED,
    TRITON,
    TRITON_NORM,
    PeerLimits,
    Room,
    check_peer_limits,
    messages_needed,
    peers_needed,
)
from commplan.runtime.ranks.groups import Group
from commplan.runtime.servers.sglang.server_fit import check_plan
from commplan.runtime.transformers.checkpoint_fit import check_runnable
from commplan.runtime.transformers.norms import check_norms

from ...planner.cli.commandline import refused
from ..ranks.faults import refusals_of
from ..strategy_files import ranges_of, strategy_file
from ..world import RankWorld

Checkpoint = Callable[..., Path]
NONE, AR, NORMED = Op("none"), Op("all_reduce"), Op("all_reduce", impl=TRITON_NORM)
FIELD = "modes.prefill[0].layers.1.mlp_out.impl"
WAY_OUT = ("leave `impl` out (gloo then performs", "or plan again for this machine")


def whole(mlp_out: Op, attn_in: Op = NONE, embed_out: Op = AR, mlp_in: Op = NONE) -> RangePlan:
    """All-reduces, and one op of the last layer."""
    plan = ranges_of([embed_out, *([NONE, AR, NONE, AR] * 2), NONE], 1, 63)
    return replace(plan, layers=(plan.layers[0], LayerOps(attn_in, AR, mlp_in, mlp_out)))


def file_of(folder: Path, plan: RangePlan, p: Parallelism = Parallelism(2), **options: Any) -> StrategyFile:  # noqa: B008
    return strategy_file(folder, p, {"prefill": [plan], "decode": [whole(AR)]}, **options)


def assert_refused(error: RefusedError, field: str, value: str, *words: str) -> None:
    assert (error.field, error.value, error.exit_code) == (field, value, 2)
    for word in words:
        assert word in error.message


@pytest.mark.parametrize(
    ("plan", "field", "impl", "words"),
    [
        (
            whole(Op("reduce_scatter_all_gather", impl=TRITON)),
            FIELD,
            TRITON,
            (
                "has no reduce_scatter_all_gather; it has all_reduce, int8_all_reduce, quantized_all_reduce, "
                "reduce_scatter, all_gather",
            ),
        ),
        (
            whole(AR, embed_out=Op("all_reduce", impl=TRITON_NORM)),
            "modes.prefill[0].embed_out.impl",
            TRITON_NORM,
            ("works at attn_out and mlp_out",),
        ),
        (
            replace(whole(Op("reduce_scatter")), head_in=Op("all_gather", impl=TRITON_NORM)),
            "modes.prefill[0].head_in.impl",
            TRITON_NORM,
            ("has no all_gather; it has all_reduce, int8_all_reduce, quantized_all_reduce, reduce_scatter;",),
        ),
    ],
    ids=["an op that no kernel has", "no norm at embed_out", "no norm behind a gather"],
)
def test_an_op_that_the_impl_does_not_have_is_refused(
    plan: RangePlan, field: str, impl: str, words: tuple[str, ...], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, plan)
    with pytest.raises(RefusedError) as raised:
        check_runnable(file)
    assert_refused(raised.value, field, impl, *words, *WAY_OUT)
    save(file, tmp_path / "plan.yaml")
    assert refused("check", tmp_path / "plan.yaml", "--model", folder)["field"] == field


def test_a_norm_behind_a_slice_is_refused(checkpoint: Checkpoint) -> None:
    """With attention DP the rows of mlp_out are cut to those of the DP group between the sum and its norm."""
    gather = Op("all_gather", group="attn_dp")
    layer = LayerOps(NONE, Op("all_reduce", group="attn_tp"), gather, Op("all_reduce", group="tp"))
    fused = replace(layer, mlp_out=replace(layer.mlp_out, impl=TRITON_NORM))
    plan = RangePlan(1, 64, Op("all_reduce", group="attn_tp"), (layer, fused), gather)
    file = strategy_file(checkpoint("qwen3"), Parallelism(4, 2), {"prefill": [plan]})
    with pytest.raises(RefusedError) as raised:
        check_runnable(file)
    assert_refused(
        raised.value, FIELD, TRITON_NORM, "sliced to dp_local between this sum and its norm", f"take {TRITON}"
    )


@pytest.mark.parametrize(
    ("limits", "activations", "tp", "words"),
    [
        (None, "bf16", 2, "gloo has no collectives of our own"),
        (KERNEL_LIMITS, "fp32", 2, "compute in bf16 and fp16, not in fp32"),
        (KERNEL_LIMITS, "bf16", 16, "join up to 8 ranks, and this group has 16"),
    ],
    ids=["backend", "activations", "ranks"],
)
def test_what_the_kernels_do_not_take_is_refused(
    limits: PeerLimits | None, activations: str, tp: int, words: str, checkpoint: Checkpoint
) -> None:
    file = file_of(checkpoint("qwen3"), whole(NORMED), Parallelism(tp), activations=activations)
    with pytest.raises(RefusedError) as raised:
        check_peer_limits(file, "gloo", limits)
    assert_refused(raised.value, FIELD, TRITON_NORM, words, *WAY_OUT)
    check_peer_limits(replace(file, modes={"decode": file.modes["decode"]}), "gloo", limits)


def test_rows_that_do_not_go_into_pieces_of_sixteen_bytes_are_refused(checkpoint: Checkpoint) -> None:
    file = file_of(checkpoint("qwen3"), whole(NORMED), activations="bf16")
    odd = replace(file, model=replace(file.model, hidden_size=60))
    with pytest.raises(RefusedError) as raised:
        check_peer_limits(odd, "nccl", KERNEL_LIMITS)
    assert_refused(raised.value, FIELD, TRITON_NORM, "rows of a multiple of 16 elements, and these have 60", *WAY_OUT)


def test_what_they_take_is_not(checkpoint: Checkpoint) -> None:
    for tp, activations in ((2, "bf16"), (8, "fp16")):
        file = file_of(checkpoint("qwen3"), whole(NORMED), Parallelism(tp), activations=activations)
        check_runnable(file)
        check_peer_limits(file, "nccl", KERNEL_LIMITS)


def test_a_group_counts_not_the_world(checkpoint: Checkpoint) -> None:
    """Sixteen ranks in DP groups of four: the kernels join those."""
    sums = Op("all_reduce", group="attn_tp", impl=TRITON_NORM)
    gather = Op("all_gather", group="attn_dp")
    layer = LayerOps(NONE, sums, gather, Op("all_reduce", group="tp"))
    plan = RangePlan(1, 100, Op("all_reduce", group="attn_tp"), (layer, layer), gather)
    file = strategy_file(checkpoint("qwen3"), Parallelism(16, 4), {"prefill": [plan]}, activations="bf16")
    check_runnable(file)
    check_peer_limits(file, "nccl", KERNEL_LIMITS)
    assert peers_needed(file) == {("attn_tp", 64): Room(rows=28)}  # 7 rows a shard


@pytest.mark.slow
def test_gloo_refuses_on_every_rank_at_load(checkpoint: Checkpoint, world: Callable[[int], RankWorld]) -> None:
    folder = checkpoint("qwen3")
    file = file_of(folder, whole(NORMED))
    said = world(2).run(refusals_of, [str(folder)] * 2, [file, file])
    assert all(text.startswith(f"{FIELD}: gloo has no collectives of our own") for text in said), said


def test_a_backend_without_them_makes_none() -> None:
    with pytest.raises(RefusedError, match="base has no collectives of our own; plan again without them") as raised:
        Backend().peers(Group("tp", None, 2, 0), torch.device("cpu"), torch.bfloat16, 64, Room(8))
    assert raised.value.field == "impl"
    assert all(impl in str(raised.value.value) for impl in PEER_IMPLS)


def test_sglang_runs_their_sums_but_not_under_attention_dp(checkpoint: Checkpoint) -> None:
    file = replace(file_of(checkpoint("qwen3"), whole(NORMED)), executor="sglang")
    check_plan(file)
    grouped = replace(file, parallelism=replace(file.parallelism, attn_dp=2))
    with pytest.raises(RefusedError, match="SGLang has no such impl of all_reduce there"):
        check_plan(grouped)


# ---- norms -------------------------------------------------------------------------------------------------------


class PlusOne(PlainNorm):
    """Looks like the others from outside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + super().forward(x) / self.weight


def model_with(last: nn.Module) -> Any:
    """What check_norms looks at, with another last norm."""
    plain = PlainNorm(64, torch.float32, torch.device("cpu"))
    layer = SimpleNamespace(input_layernorm=plain, post_attention_layernorm=plain)
    return SimpleNamespace(model=SimpleNamespace(layers=[layer, layer], norm=SimpleNamespace(norm=last)))


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (nn.LayerNorm(64), "norm of this model (LayerNorm) has no weight of 64 elements with a variance_epsilon"),
        (PlainNorm(32, torch.float32, torch.device("cpu")), "(PlainNorm) has no weight of 64"),
        (PlusOne(64, torch.float32, torch.device("cpu")), "(PlusOne) computes something else than weight * x / rms(x)"),
    ],
    ids=["LayerNorm", "another width", "another formula"],
)
def test_a_norm_that_is_no_plain_rms_norm_is_refused_where_a_kernel_would_stand_for_it(
    last: nn.Module, words: str, checkpoint: Checkpoint
) -> None:
    file = file_of(checkpoint("qwen3"), whole(NORMED))
    with pytest.raises(RefusedError) as raised:
        check_norms(model_with(last), file)
    assert_refused(raised.value, FIELD, TRITON_NORM, words, f"leave `impl` out, or take {TRITON}")
    check_norms(model_with(last), replace(file, modes={"decode": file.modes["decode"]}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norms_of_the_models_are_plain(dtype: torch.dtype, checkpoint: Checkpoint) -> None:
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    for norm in (DeepseekV3RMSNorm(64), Qwen3RMSNorm(64)):
        nn.init.normal_(norm.weight)
        check_norms(model_with(norm.to(dtype)), file_of(checkpoint("qwen3"), whole(NORMED)))


# ---- wire bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", [None, *PEER_IMPLS])
@pytest.mark.parametrize(
    ("op", "per_row"),
    [
        (Op("all_reduce"), 2 * 3 / 4 * 128),
        (Op("int8_all_reduce", algorithm="gather"), 3 * (64 + 4)),
        (Op("int8_all_reduce", algorithm="two_shot"), 2 * 3 / 4 * (64 + 4)),
        (Op("reduce_scatter"), 3 / 4 * 128),
    ],
    ids=str,
)
def test_wire_bytes_are_those_of_the_op_whoever_performs_it(
    op: Op, per_row: float, impl: str | None, checkpoint: Checkpoint
) -> None:
    file = file_of(checkpoint("qwen3"), whole(AR), Parallelism(4))
    place = Place(1, "mlp_out", replace(op, impl=impl), None, None, file.layer_shape(1))  # type: ignore[arg-type]
    assert wire_bytes_per_row(place, file, 64, 2) == per_row


# ---- through the host's memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (Op("all_reduce", "two_shot", impl=STAGED), "it does not do algorithm two_shot; it does gather, one_shot"),
        (Op("all_reduce", impl=STAGED), "performs all_reduce by an algorithm that the op names"),
        (Op("all_reduce", "gather", impl=STAGED, pieces=16), "its messages go in up to 8 pieces, not in 16"),
        (Op("all_reduce", "one_shot", impl=STAGED, pieces=2), "is one launch, which has no pieces"),
        (Op("int8_all_reduce", "two_shot", impl=STAGED), "it does not do algorithm two_shot"),
        (Op("all_reduce", "gather", impl=TRITON), "gather of all_reduce is by kernels around whole messages"),
    ],
)
def test_what_no_impl_does_as_it_is_told_is_refused_before_anything_is_bound(
    checkpoint: Checkpoint, op: Op, words: str
) -> None:
    layer = LayerOps(NONE, op, NONE, Op("all_reduce"))
    plan = RangePlan(1, 8, Op("all_reduce"), (layer, layer), NONE)
    file = strategy_file(checkpoint("qwen3"), Parallelism(2), {"prefill": [plan]}, activations="bf16")
    with pytest.raises(RefusedError, match=re.escape(words)):
        check_runnable(file)


def test_types_and_machines_that_it_is_not_for_are_refused_and_messages_are_as_large_as_their_type(
    checkpoint: Checkpoint,
) -> None:
    layer = LayerOps(NONE, Op("all_reduce", "gather", impl=STAGED), NONE, Op("all_reduce"))
    plan = RangePlan(1, 8, Op("all_reduce"), (layer, layer), NONE)

    def file(activations: str) -> StrategyFile:
        return strategy_file(checkpoint("qwen3"), Parallelism(2), {"prefill": [plan]}, activations=activations)

    check_peer_limits(file("bf16"), "nccl", KERNEL_LIMITS)
    assert messages_needed(file("bf16")) == {"tp": 8 * 64 * 2}
    assert messages_needed(file("fp32")) == {"tp": 8 * 64 * 4}
    with pytest.raises(RefusedError, match="compute in bf16 and fp16, not in fp32"):
        check_peer_limits(file("fp32"), "nccl", KERNEL_LIMITS)
    check_peer_limits(file("fp32"), "gloo", None)
    with pytest.raises(RefusedError, match="it runs on nvidia, not where rccl is the backend"):
        check_peer_limits(file("bf16"), "rccl", KERNEL_LIMITS)
