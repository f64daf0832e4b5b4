"""What servers and libraries decide by hard-coded thresholds: one function each, from a row to an impl that it has.

Each names where the rule stands. A rule that would take an impl which was not measured takes its next one, and the
library at last.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decision_rows import Row

_KIB, _MIB = 1024, 1024 * 1024
_ONE_LAUNCH = (
    "custom_one_shot",
    "vllm_custom",
    "vllm_one_shot",
    "one_shot_push",
    "triton_one_shot",
    "torch_one_shot",
    "pcie_one_shot",
)
_FUSED = ("flashinfer_fused",)
_TWO_SHOT = ("custom_one_shot", "vllm_custom", "vllm_two_shot", "torch_two_shot")
_NVLINK = ("A100", "H100", "H200", "B200", "B300", "GB200", "GB300")


def library(row: Row) -> str | None:
    """Always the library."""
    return _first(row, ())


def trivial(row: Row) -> str | None:
    """One launch for what a decode step sends, up to 1 MiB; the library above."""
    return _first(row, _ONE_LAUNCH if row.message_bytes <= _MIB else ())


def sglang(row: Row) -> str | None:
    """SGLang 0.5.23: its own kernel up to 16 MiB, beyond two ranks over NVLink (custom_all_reduce_v2.py:74,148)."""
    if row.message_bytes <= 16 * _MIB and (row.ranks == 2 or row.system in _NVLINK):
        return _first(row, (*_ONE_LAUNCH, *_TWO_SHOT))
    return _first(row, ())


_VLLM_CUSTOM = {  # all_reduce_utils.py:31-55, below which; by capability, then ranks
    "90": {2: 64 * _MIB, 4: 32 * _MIB, 6: 512 * _KIB, 8: 256 * _KIB},
    "100": {2: 2 * _MIB, 4: 2 * _MIB, 6: _MIB, 8: _MIB},
    "103": {2: 4 * _MIB, 4: 4 * _MIB, 6: 8 * _MIB, 8: 4 * _MIB},
}
_VLLM_SYMMETRIC = {  # all_reduce_utils.py:58-83
    "90": {2: 64 * _MIB, 4: 32 * _MIB, 6: 64 * _MIB, 8: 64 * _MIB},
    "100": {2: 8 * _MIB, 4: 32 * _MIB, 6: 128 * _MIB, 8: 128 * _MIB},
    "103": {2: 4 * _MIB, 4: 32 * _MIB, 6: 32 * _MIB, 8: 64 * _MIB},
}
_VLLM_FUSED = {  # allreduce_rms_fusion.py:104-127, up to which
    ("90", 2): 64 * _MIB,
    ("90", 4): 2 * _MIB,
    ("90", 8): _MIB // 2,
}
_VLLM_QUICK = {  # quick_all_reduce.py:49-64, fp16, from which; the format by an environment variable
    **{(2, wire): size * _MIB for wire, size in (("int8", 2), ("fp8_e4m3", 2), ("int6", 2), ("int4", 1))},
    **{(4, wire): size * _MIB for wire, size in (("int8", 16), ("fp8_e4m3", 16), ("int6", 4), ("int4", 2))},
}
_CAPABILITY = {"H100": "90", "H200": "90", "B200": "100", "GB200": "100", "B300": "103", "GB300": "103"}


def vllm(row: Row) -> str | None:
    """vLLM 0.33: custom kernel, then symmetric memory, by capability and ranks; 8 MiB where the table has no line."""
    capability = _CAPABILITY.get(row.system)
    if row.system == "MI300X":
        least = _VLLM_QUICK.get((row.ranks, row.wire or ""), math.inf)
        return _first(row, (f"quick_reduce.{row.wire}.two_shot",) if row.message_bytes >= least else ())
    if row.width is not None and row.message_bytes <= _VLLM_FUSED.get((capability, row.ranks), 0):
        return _first(row, _FUSED)
    if capability is None:
        linked = row.ranks == 2 or row.system in _NVLINK
        return _first(row, _ONE_LAUNCH if linked and row.message_bytes < 8 * _MIB else ())
    if row.message_bytes < _VLLM_CUSTOM[capability].get(row.ranks, 0):
        return _first(row, _ONE_LAUNCH)
    if row.message_bytes < _VLLM_SYMMETRIC[capability].get(row.ranks, 0):
        multimem = row.ranks in ((4, 6, 8) if capability == "90" else (6, 8))
        return _first(row, ("multimem",) if multimem else ("torch_two_shot",))
    return _first(row, ())


_TRT_LAST = {  # customAllReduceUtils.h, hidden 4096: the last token count before NCCL, in bytes
    "90": {2: 1024 * 8192, 4: 512 * 8192, 8: 512 * 8192},
    "100": {2: 1024 * 8192, 4: 512 * 8192, 8: 512 * 8192},
}


def tensorrt_llm(row: Row) -> str | None:
    """TensorRT-LLM without its tuner: the table of hidden 4096; NCCL where it has no line."""
    last = _TRT_LAST.get(_CAPABILITY.get(row.system, "")[:3].replace("103", "100"), {}).get(row.ranks, 0)
    return _first(row, (*_ONE_LAUNCH, *_TWO_SHOT) if row.message_bytes <= last else ())


def _first(row: Row, wanted: tuple[str, ...]) -> str | None:
    """Where the library was not measured, the servers' kernel beside it stands in."""
    return next((impl for impl in (*wanted, "nccl", "vllm_custom") if impl in row.times), None)


RULES = {
    "always the library": library,
    "one launch in decode": trivial,
    "SGLang 0.5.23": sglang,
    "vLLM 0.33": vllm,
    "TensorRT-LLM, table": tensorrt_llm,
}
