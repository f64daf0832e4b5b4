"""How an op is spelled: what an old file says still means what it meant."""

from __future__ import annotations

import pytest

from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.ops import Op, parse, spell

OWN = {"impl": "commplan_triton"}


def test_an_all_reduce_without_an_algorithm_is_what_it_was() -> None:
    assert parse("all_reduce", "x") == Op("all_reduce")
    assert parse({"all_reduce": OWN}, "x") == Op("all_reduce", impl="commplan_triton")
    assert parse("all_reduce", "x").way is Op("all_reduce").kind.ways[None]


@pytest.mark.parametrize("algorithm", ["one_shot", "two_shot"])
def test_an_all_reduce_by_our_own_kernel_may_name_its_algorithm(algorithm: str) -> None:
    spelled = {"all_reduce": {"algorithm": algorithm, **OWN}}
    op = parse(spelled, "x")
    assert (op.algorithm, spell(op)) == (algorithm, spelled)
    assert op.way.peers == {"one_shot": "message", "two_shot": "shards"}[algorithm]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"algorithm": "one_shot"}, "name the impl as well"),
        ({"algorithm": "gather", **OWN}, "not accepted"),
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
