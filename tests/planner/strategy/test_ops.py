"""How an op is spelled: what an old file says still means what it meant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.ops import Op, parse, spell
from commplan.planner.strategy.words import MlpKind

OWN = {"impl": "commplan_triton"}


def test_an_all_reduce_without_an_algorithm_is_what_it_was() -> None:
    assert parse("all_reduce", "x") == Op("all_reduce")
    assert parse({"all_reduce": OWN}, "x") == Op("all_reduce", impl="commplan_triton")
    assert parse("all_reduce", "x").way is Op("all_reduce").kind.ways[None]


@pytest.mark.parametrize("algorithm", ["one_shot", "two_shot", "pushed"])
def test_an_all_reduce_by_our_own_kernel_may_name_its_algorithm(algorithm: str) -> None:
    spelled = {"all_reduce": {"algorithm": algorithm, **OWN}}
    op = parse(spelled, "x")
    assert (op.algorithm, spell(op)) == (algorithm, spelled)
    assert op.way.peers == {"one_shot": "message", "two_shot": "shards", "pushed": "pushed"}[algorithm]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"algorithm": "one_shot"}, "name the impl as well"),
        ({"algorithm": "ring", **OWN}, "not accepted"),
    ],
)
def test_an_algorithm_that_nobody_has_is_refused(parameters: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        parse({"all_reduce": parameters}, "x")
    assert raised.value.field == "x.all_reduce.algorithm"


@pytest.mark.parametrize("other", ["nccl", "vllm_custom"])
def test_nobody_elses_kernel_takes_an_algorithm_of_ours(other: str) -> None:
    from commplan.planner.strategy.file import capabilities

    can, op = capabilities("plan_only"), Op("all_reduce", algorithm="one_shot", impl=other)
    why = can.impl_refusal("mlp_out", op, "nccl", "bf16", 2, 5120)
    assert why is not None and "commplan's own kernel" in why
    ours = Op("all_reduce", algorithm="one_shot", impl="commplan_triton")
    assert can.impl_refusal("mlp_out", ours, "nccl", "bf16", 2, 5120) is None


PUSHED = Op("all_reduce", algorithm="pushed", impl="commplan_triton_norm")


@pytest.mark.parametrize(
    ("op", "boundary", "ranks", "words"),
    [
        (PUSHED, "mlp_out", 2, None),
        (PUSHED, "attn_out", 4, "it is for 2 ranks, and this group has 4"),
        (PUSHED, "embed_out", 2, "there is no residual yet"),
        (replace(PUSHED, impl="commplan_triton"), "mlp_out", 2, "taken by a kernel that adds and norms too"),
        (replace(PUSHED, residual="fold"), "mlp_out", 2, "a residual cannot fold in them"),
        (replace(PUSHED, impl="custom_one_shot"), "mlp_out", 2, "commplan's own kernel of all_reduce"),
    ],
)
def test_rows_are_pushed_to_one_peer_where_a_norm_follows(op: Op, boundary: str, ranks: int, words: str | None) -> None:
    from commplan.planner.strategy.file import capabilities

    why = capabilities("sglang").impl_refusal(boundary, op, "nccl", "bf16", ranks, 5120)
    assert why is None if words is None else why is not None and words in why


@pytest.mark.parametrize(
    ("executor", "mlp", "words"),
    [
        ("sglang", "dense", None),
        ("sglang", "moe", "no single GEMM makes the rows"),
        ("transformers", "dense", "in one go"),
        ("plan_only", "dense", "no server is named"),
    ],
)
def test_rows_are_pushed_where_an_executor_makes_them_piece_by_piece(
    executor: str, mlp: MlpKind, words: str | None
) -> None:
    from commplan.planner.strategy.file import Parallelism, capabilities

    why = capabilities(executor).refusal("mlp_out", PUSHED, "prefill", mlp, Parallelism(2))
    assert why is None if words is None else why is not None and words in why


def test_a_sum_whose_rows_are_pushed_is_reordered() -> None:
    from commplan.planner.strategy.file import Parallelism
    from commplan.planner.strategy.layout import numerics_class

    assert numerics_class("mlp_out", PUSHED, Parallelism(2)) == "reordered"
    assert numerics_class("mlp_out", replace(PUSHED, algorithm="one_shot"), Parallelism(2)) == "exact"
