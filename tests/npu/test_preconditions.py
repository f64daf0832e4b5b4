"""What the documentation of HCCL, aclnn and torch_npu demands, and their Meta kernels let pass, the backend refuses.

Sources: torch_npu's docstrings (npu_dynamic_quant: float16 or bfloat16, more than one dim; npu_rms_norm: gamma of the
input's type), CANN's aclnnAddRmsNorm (neither empty nor non-contiguous input, x2 like x1, gamma like the last dims),
HCCL's HcclAllReduce, HcclReduceScatter, HcclAllGather (data types), torch_npu's ProcessGroupHCCL (contiguous tensors,
dim 0 divisible by the group in all_to_all).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from commplan.planner.strategy.file import Parallelism
from commplan.runtime.backends.hccl import HcclBackend
from commplan.runtime.errors import RefusedError
from commplan.runtime.ranks.groups import Group

from .fake_npu import fake_npu, traffic
from .fake_world import FakeWorld
from .test_op_contracts import kind, norm, npu

FOUR = Parallelism(4)


@pytest.fixture
def group(fake_world: FakeWorld) -> Group:
    return fake_world(FOUR, 1).tp


Attempt = Callable[[HcclBackend, Group], Any]
REFUSED: dict[str, tuple[Attempt, str, object, str]] = {
    "reduce_scatter of 7 rows over 4 ranks": (
        lambda b, g: b.reduce_scatter(npu(7, 130), g),
        "reduce_scatter.rows",
        7,
        "must divide by the 4 ranks of tp",
    ),
    "reduce_scatter of fewer rows than ranks": (
        lambda b, g: b.reduce_scatter(npu(1, 130), g),
        "reduce_scatter.rows",
        1,
        "must divide by the 4 ranks of tp",
    ),
    "all_to_all of 6 rows over 4 ranks": (
        lambda b, g: b.all_to_all(npu(6, 130), g),
        "all_to_all.rows",
        6,
        "must divide by the 4 ranks of tp",
    ),
    "all_to_all_uneven with 3 counts for 4 ranks": (
        lambda b, g: b.all_to_all_uneven(npu(6, 130), [2, 2, 2], [1, 1, 1, 1], g),
        "all_to_all_uneven.sent",
        [2, 2, 2],
        "one count for each of 4 ranks",
    ),
    "all_to_all_uneven that receives from 5 of 4 ranks": (
        lambda b, g: b.all_to_all_uneven(npu(4, 130), [1, 1, 1, 1], [1, 1, 1, 1, 1], g),
        "all_to_all_uneven.received",
        [1, 1, 1, 1, 1],
        "one count for each of 4 ranks",
    ),
    "all_to_all_uneven of more rows than there are": (
        lambda b, g: b.all_to_all_uneven(npu(6, 130), [2, 2, 2, 2], [1, 1, 1, 1], g),
        "all_to_all_uneven.sent",
        [2, 2, 2, 2],
        "the message has 6 rows",
    ),
    "sum of raw INT8 values": (
        lambda b, g: b.all_reduce(npu(8, 130, dtype=torch.int8), g),
        "all_reduce.dtype",
        "int8",
        "accepted on NPUs: int16, int32, int64, float16, bfloat16, float32",
    ),
    "scattered sum of float64": (
        lambda b, g: b.reduce_scatter(npu(8, 130, dtype=torch.float64), g),
        "reduce_scatter.dtype",
        "float64",
        "accepted on NPUs",
    ),
    "gather of bool": (
        lambda b, g: b.all_gather(npu(8, 130, dtype=torch.bool), g),
        "all_gather.dtype",
        "bool",
        "accepted on NPUs",
    ),
    "all_to_all of complex numbers": (
        lambda b, g: b.all_to_all(npu(8, 130, dtype=torch.complex64), g),
        "all_to_all.dtype",
        "complex64",
        "accepted on NPUs",
    ),
    **{
        f"{name} of strided rows": (
            lambda b, g, name=name: getattr(b, name)(npu(8, 260)[:, ::2], g),
            f"{name}.stride",
            (260, 2),
            "HCCL takes contiguous messages",
        )
        for name in ("all_reduce", "reduce_scatter", "all_gather", "all_to_all")
    },
    "all_to_all_uneven of strided rows": (
        lambda b, g: b.all_to_all_uneven(npu(8, 260)[:, ::2], [2] * 4, [2] * 4, g),
        "all_to_all_uneven.stride",
        (260, 2),
        "HCCL takes contiguous messages",
    ),
    "quantising float32": (
        lambda b, g: b.quantize(npu(7, 130, dtype=torch.float32)),
        "npu_dynamic_quant.dtype",
        "float32",
        "accepted on NPUs: float16, bfloat16",
    ),
    "quantising one dim": (
        lambda b, g: b.quantize(npu(130)),
        "npu_dynamic_quant.shape",
        "[130]",
        "[rows, width], are expected",
    ),
    "quantising [batch, sequence, width]": (
        lambda b, g: b.quantize(npu(2, 7, 130)),
        "npu_dynamic_quant.shape",
        "[2, 7, 130]",
        "[rows, width], are expected",
    ),
    "norm of integers": (
        lambda b, g: b.rms_norm(npu(7, 130, dtype=torch.int32), norm(130)),
        "npu_rms_norm.dtype",
        "int32",
        "accepted on NPUs: float16, bfloat16, float32",
    ),
    "norm of three dims": (
        lambda b, g: b.rms_norm(npu(1, 7, 130), norm(130)),
        "npu_rms_norm.shape",
        "[1, 7, 130]",
        "[rows, width], are expected",
    ),
    "norm with the weight of another width": (
        lambda b, g: b.rms_norm(npu(7, 130), norm(128)),
        "npu_rms_norm.gamma",
        "bfloat16 [128]",
        "must fit rows of bfloat16 [7, 130]",
    ),
    "norm with a weight of another type": (
        lambda b, g: b.rms_norm(npu(7, 130), norm(130, torch.float32)),
        "npu_rms_norm.gamma",
        "float32 [130]",
        "must fit rows of bfloat16 [7, 130]",
    ),
    "add and norm with the weight of another width": (
        lambda b, g: b.add_rms_norm(npu(7, 130), npu(7, 130), norm(1)),
        "npu_add_rms_norm.gamma",
        "bfloat16 [1]",
        "must fit rows of bfloat16 [7, 130]",
    ),
    "add of a residual with fewer rows": (
        lambda b, g: b.add_rms_norm(npu(7, 130), npu(1, 130), norm(130)),
        "npu_add_rms_norm.residual",
        "bfloat16 [1, 130]",
        "must be like x, bfloat16 [7, 130]",
    ),
    "add of a residual of another type": (
        lambda b, g: b.add_rms_norm(npu(7, 130), npu(7, 130, dtype=torch.float32), norm(130)),
        "npu_add_rms_norm.residual",
        "float32 [7, 130]",
        "must be like x, bfloat16 [7, 130]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_precondition_is_refused_with_field_value_and_reason(group: Group, case: str) -> None:
    attempt, field, value, reason = REFUSED[case]
    with fake_npu(), traffic() as calls, pytest.raises(RefusedError) as refused:
        attempt(HcclBackend(), group)
    assert (refused.value.field, refused.value.value) == (field, value)
    assert reason in refused.value.message
    assert calls == [], "refused after something had been sent"


# ---- what is accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_messages_that_meet_the_preconditions_come_out_in_the_right_shapes(group: Group, dtype: torch.dtype) -> None:
    backend = HcclBackend()
    with fake_npu():
        for rows, width in ((4, 1), (8, 130), (12, 7)):
            x = npu(rows, width, dtype=dtype)
            assert kind(backend.all_reduce(x, group)) == ("npu", (rows, width), dtype)
            assert kind(backend.reduce_scatter(x, group)) == ("npu", (rows // 4, width), dtype)
            assert kind(backend.all_gather(x, group)) == ("npu", (rows * 4, width), dtype)
            assert kind(backend.all_to_all(x, group)) == ("npu", (rows, width), dtype)
            uneven = backend.all_to_all_uneven(x, [rows, 0, 0, 0], [1, 0, 5, 2], group)
            assert kind(uneven) == ("npu", (8, width), dtype)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_integers_are_moved(group: Group, dtype: torch.dtype) -> None:
    with fake_npu():
        counts = npu(4, dtype=dtype)
        assert kind(HcclBackend().all_to_all(counts, group)) == ("npu", (4,), dtype)
        assert kind(HcclBackend().all_gather(counts, group)) == ("npu", (16,), dtype)


def test_zero_rows_are_answered_without_a_kernel(group: Group) -> None:
    backend = HcclBackend()
    with fake_npu(), traffic() as calls:
        empty = npu(0, 130)
        values, scales = backend.quantize(empty)
        assert kind(values) == ("npu", (0, 130), torch.int8)
        assert kind(scales) == ("npu", (0, 1), torch.float32)
        assert kind(backend.rms_norm(empty, norm(130))) == kind(empty)
        assert [kind(x) for x in backend.add_rms_norm(empty, empty, norm(130))] == 2 * [kind(empty)]
    assert calls == []
