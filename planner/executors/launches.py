"""Figures of impls that are a whole collective in one launch: their prices where no table of them stands.

`cost/one_launch.py` has the formula. A kernel takes the algorithm that is cheaper:

  one_shot   every rank reads every other's message
  two_shot   sums a shard each, then reads the sums
  multimem   the switch adds and multiplies (NVLS)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["one_shot", "two_shot", "multimem"]
_HERE = "two H200s, NVLink 4, CUDA graphs"
_BOTH: tuple[Algorithm, ...] = ("one_shot", "two_shot")


@dataclass(frozen=True, slots=True)
class OneLaunch:
    """The figures of one impl, of kernels in a CUDA graph on the machine that `source` names.

    launch_us   start to end of the kernel over two ranks, less its steps over the link
    rank_us     more for each rank beyond two: one more to signal and to wait for
    bandwidth   times what the library reaches on that link: of NVLink 4, 0.75 (NVIDIA AIConfigurator 0.12)
    norm_us     add and norm of a row per 1024 columns, where inside: those of further rows hide behind the link
    quantize_us the same of each time that a row is quantised
    quantize_floor_us  more for any message that is quantised
    is_assumed         nothing of the kind was measured anywhere
    quantize_passes    times that the bytes of the message pass through memory for it, where nothing hides them
    """

    launch_us: float
    rank_us: float
    bandwidth: float
    source: str
    algorithms: tuple[Algorithm, ...] = _BOTH
    norm_us: float = 0.0
    quantize_us: float = 0.0
    quantize_floor_us: float = 0.0
    quantize_passes: float = 0.0
    is_assumed: bool = False


_OWN = f"{_HERE}: 3.2 us for a row of 5120 and 460.7 for 16384; 4.5 over four; INT8: 1.3 more by gather, 2.7 two-shot"
ONE_LAUNCH: dict[str, OneLaunch] = {
    "commplan_triton": OneLaunch(2.2, 0.65, 1.08, _OWN, quantize_us=0.27),
    "commplan_triton_norm": OneLaunch(
        2.2, 0.65, 1.08, f"{_OWN}; a norm adds 1.4 us to a row of 5120", norm_us=0.28, quantize_us=0.27
    ),
    "custom_one_shot": OneLaunch(
        1.2,
        0.15,
        0.89,
        "smallest all-reduce in a CUDA graph over 2, 4, 8 H200s 2.2, 2.5, 3.0 us; 16 MiB 55.5, 83.6, 107.6 "
        "(NVIDIA AIConfigurator 0.12 table of SGLang's kernel)",
    ),
    "one_shot_push": OneLaunch(1.2, 0.15, 0.89, "as custom_one_shot", ("one_shot",)),
    "vllm_custom": OneLaunch(3.6, 0.15, 0.81, f"{_HERE}: 4.6 us for one row of 5120, 608 for 16384 (vLLM 0.33)"),
    "vllm_one_shot": OneLaunch(3.6, 0.15, 0.81, "as vllm_custom", ("one_shot",)),
    "vllm_two_shot": OneLaunch(3.6, 0.15, 0.81, "as vllm_custom", ("two_shot",)),
    "torch_one_shot": OneLaunch(5.0, 0.3, 0.55, f"{_HERE}: 6.1 us for one row of 5120, 910 for 16384", ("one_shot",)),
    "torch_two_shot": OneLaunch(4.0, 0.3, 0.97, f"{_HERE}: 6.0 us for one row of 5120, 513 for 16384", ("two_shot",)),
    "triton_one_shot": OneLaunch(5.0, 0.3, 0.55, "as torch_one_shot", ("one_shot",)),
    "triton_multimem": OneLaunch(5.0, 0.3, 0.64, "as multimem", ("multimem",)),
    "multimem": OneLaunch(
        5.0, 0.3, 0.64, "eight H100s: 11 us for 512 KiB, 631 for 128 MiB (vllm-project/vllm#42324)", ("multimem",)
    ),
    "flashinfer": OneLaunch(2.3, 0.3, 0.75, f"{_HERE}: 3.3 us for one row of 5120, 661 for 16384 (FlashInfer 0.7.4)"),
    "flashinfer_fused": OneLaunch(
        1.9, 0.3, 0.63, f"{_HERE}: with norm 4.9 us for one row of 5120, 796 for 16384 (FlashInfer 0.7.4)", norm_us=0.4
    ),
    "mscclpp": OneLaunch(
        3.2, 0.3, 0.75, "eight H200s in a CUDA graph: 5.9 us for 2 KiB, 14.0 for 1 MiB (sgl-project/sglang#22734)"
    ),
    "flashinfer_fp8": OneLaunch(
        6.5,
        0.6,
        0.95,
        f"{_HERE}: FP8 two-shot, 8.7 us for 8 rows of 5120, 357 for 16384 (FlashInfer 0.7.4)",
        ("two_shot",),
        quantize_passes=2.2,
    ),
    "trtllm_low_precision": OneLaunch(
        4.0,
        0.6,
        1.0,
        "no time is published: what the library reaches on that link, and two passes over memory (TensorRT-LLM)",
        ("two_shot",),
        quantize_passes=2.0,
        is_assumed=True,
    ),
    "quick_reduce": OneLaunch(
        7.0,
        1.2,
        0.75,
        "MI300X in fp16: 8 to 9 us for 4 to 32 KiB over two, 13 over four, 19 to 25 quantised; 256 MiB over two as "
        "INT4 1759, INT6 2518, FP8 3248 (ROCm/aiter#801, sgl-project/sglang#6619)",
        ("two_shot",),
        quantize_floor_us=11.5,
        quantize_passes=2.0,
    ),
    "quick_reduce_fp": OneLaunch(
        7.0, 1.2, 0.93, "as quick_reduce without quantisation: 256 MiB over two 5822 us (ROCm/aiter#801)", ("two_shot",)
    ),
    "aiter": OneLaunch(6.5, 0.15, 0.98, "MI300X in fp16 over two: 8.9 us for 8 KiB, 5614 for 256 MiB (ROCm/aiter#801)"),
    # Against a sum and a norm apart, over four at 7168 columns: 15 % less for one row, 8 % more for 256.
    "aiter_fused": OneLaunch(
        6.5,
        0.15,
        0.8,
        "as aiter; with the norm 3.3 us less than apart for a row of 7168, 4.4 more for 256 (vllm-project/vllm#54787)",
        norm_us=0.1,
    ),
    "pcie_one_shot": OneLaunch(
        5.2,
        0.15,
        1.2,
        "RTX PRO 6000s: 6.9 us for 256 bytes over four, 7.5 over eight; 104 for 1 MiB over four, 289 over eight; 74 "
        "for 256 KiB over eight (voipmonitor/rtx6kpro)",
        ("one_shot",),
    ),
    "flashinfer_pcie_ipc": OneLaunch(
        2.5,
        0.4,
        1.35,
        "two PCIe 5 devices: all-gather of 8 KiB 4.1 us, of 32 MiB 717, NCCL 968 (flashinfer-ai/flashinfer#5023)",
    ),
}
"""By impl."""
