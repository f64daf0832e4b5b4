"""SGLang's words in ours: versions, forward modes, architectures, dtypes, devices."""

from __future__ import annotations

from dataclasses import dataclass

from commplan.planner.strategy.file import capabilities

from ..captured_sizes import Captures

STRATEGY_VARIABLE = "COMMPLAN_STRATEGY"
EXECUTOR = "sglang"
DECODE_GRAPHS = Captures("decode", "--cuda-graph-bs-decode")
PREFILL_GRAPHS = Captures("prefill", "--cuda-graph-bs-prefill", padding=2)
"""A prefill that a graph would pad to more than twice its tokens runs eagerly (prefill_cuda_graph_runner.py)."""
PREFILL_STEPS = (
    *range(4, 33, 4),
    *range(48, 257, 16),
    *range(288, 513, 32),
    *range(576, 1025, 64),
    *range(1280, 4097, 256),
)
"""Prefills that SGLang captures, then steps of 512 up to the chunk (generate_prefill_cuda_graph_batch_sizes)."""
MOST_LATENT = 8192
"""The largest of a model with MLA."""
CAN = capabilities(EXECUTOR)
"""What plans may ask of a server, as the executor's file tells the planner too."""
TESTED_VERSIONS = CAN.versions or ()
ONE_SHOT = "custom_one_shot"
"""SGLang's own all-reduce, the one impl besides the library of the machine."""

# sglang.srt.model_executor.forward_batch_info.ForwardMode. IDLE and PREBUILT run no layer without attention DP.
MODES = {
    "EXTEND": "prefill",
    "SPLIT_PREFILL": "prefill",
    "DLLM_EXTEND": "prefill",
    "MIXED": "mixed",
    "DECODE": "decode",
    "TARGET_VERIFY": "target_verify",
    "DRAFT_EXTEND_V2": "draft_extend",
}

DTYPES = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


@dataclass(frozen=True, slots=True)
class Seam:
    """Where a model family declares its layers and runs its forward, as dotted paths.

    body  embedding, layers and final norm, which a prefill graph captures without the head
    """

    layer: str
    body: str
    model: str


_QWEN2 = "sglang.srt.models.qwen2."
_QWEN3 = "sglang.srt.models.qwen3."
_QWEN3_MOE = "sglang.srt.models.qwen3_moe."
_DEEPSEEK = "sglang.srt.models.deepseek_v2."


def _seam(module: str, family: str) -> Seam:
    return Seam(*(f"{module}{family}{part}" for part in ("DecoderLayer", "Model", "ForCausalLM")))


_DEEPSEEK_SEAM = _seam(_DEEPSEEK, "DeepseekV2")

SEAMS = {
    "Qwen2ForCausalLM": _seam(_QWEN2, "Qwen2"),
    "Qwen3ForCausalLM": _seam(_QWEN3, "Qwen3"),
    "Qwen3MoeForCausalLM": _seam(_QWEN3_MOE, "Qwen3Moe"),
    "DeepseekV2ForCausalLM": _DEEPSEEK_SEAM,
    "DeepseekV3ForCausalLM": _DEEPSEEK_SEAM,
    "DeepseekV32ForCausalLM": _DEEPSEEK_SEAM,
}
WITH_LATENTS = frozenset(name for name, seam in SEAMS.items() if seam is _DEEPSEEK_SEAM)
