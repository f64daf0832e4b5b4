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
    efficiency  of the link's data-sheet bandwidth
    norm_us     residual add and norm of a row per 1024 columns, where inside: those of further rows hide behind the link
    """

    launch_us: float
    rank_us: float
    efficiency: float
    source: str
    algorithms: tuple[Algorithm, ...] = _BOTH
    norm_us: float = 0.0


_OWN = f"{_HERE}: 3.2 us for one row of 5120 and 460.7 for 16384; 4.5 over four (docs/performance.md)"
ONE_LAUNCH: dict[str, OneLaunch] = {
    "commplan_triton": OneLaunch(2.2, 0.65, 0.81, _OWN),
    "commplan_triton_norm": OneLaunch(2.2, 0.65, 0.81, f"{_OWN}; a norm adds 1.4 us to a row of 5120", norm_us=0.28),
    "custom_one_shot": OneLaunch(
        1.2,
        0.15,
        0.67,
        "smallest all-reduce in a CUDA graph over 2, 4, 8 H200s 2.2, 2.5, 3.0 us; 16 MiB 55.5, 83.6, 107.6 "
        "(NVIDIA AIConfigurator 0.12 table of SGLang's kernel)",
    ),
    "vllm_custom": OneLaunch(3.6, 0.15, 0.61, f"{_HERE}: 4.6 us for one row of 5120, 608 for 16384 (vLLM 0.33)"),
    "torch_one_shot": OneLaunch(5.0, 0.3, 0.41, f"{_HERE}: 6.1 us for one row of 5120, 910 for 16384", ("one_shot",)),
    "torch_two_shot": OneLaunch(4.0, 0.3, 0.73, f"{_HERE}: 6.0 us for one row of 5120, 513 for 16384", ("two_shot",)),
    "multimem": OneLaunch(
        5.0, 0.3, 0.48, "eight H100s: 11 us for 512 KiB, 631 for 128 MiB (vllm-project/vllm#42324)", ("multimem",)
    ),
    "flashinfer": OneLaunch(2.3, 0.3, 0.56, f"{_HERE}: 3.3 us for one row of 5120, 661 for 16384 (FlashInfer 0.7.4)"),
    "flashinfer_fused": OneLaunch(
        1.9, 0.3, 0.47, f"{_HERE}: with norm 4.9 us for one row of 5120, 796 for 16384 (FlashInfer 0.7.4)", norm_us=0.4
    ),
    "mscclpp": OneLaunch(
        3.2, 0.3, 0.56, "eight H200s in a CUDA graph: 5.9 us for 2 KiB, 14.0 for 1 MiB (sgl-project/sglang#22734)"
    ),
    "flashinfer_pcie_ipc": OneLaunch(
        2.5, 0.4, 0.73, "two PCIe 5 devices: all-gather of 8 KiB 4.1 us, of 32 MiB 717 (flashinfer-ai/flashinfer#5023)"
    ),
}
"""By impl."""
