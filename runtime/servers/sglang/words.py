"""SGLang's words in ours: versions, forward modes, architectures, dtypes, devices."""

from __future__ import annotations

from dataclasses import dataclass

from commplan.planner.strategy.file import capabilities

STRATEGY_VARIABLE = "COMMPLAN_STRATEGY"
EXECUTOR = "sglang"
CAPTURE_FLAG = "--cuda-graph-bs-decode"
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
    """Where a model family declares its layers and runs its forward, as dotted paths."""

    layer: str
    model: str


_QWEN2 = "sglang.srt.models.qwen2."
_QWEN3 = "sglang.srt.models.qwen3."
_QWEN3_MOE = "sglang.srt.models.qwen3_moe."
_DEEPSEEK = "sglang.srt.models.deepseek_v2."
_DEEPSEEK_SEAM = Seam(_DEEPSEEK + "DeepseekV2DecoderLayer", _DEEPSEEK + "DeepseekV2ForCausalLM")

SEAMS = {
    "Qwen2ForCausalLM": Seam(_QWEN2 + "Qwen2DecoderLayer", _QWEN2 + "Qwen2ForCausalLM"),
    "Qwen3ForCausalLM": Seam(_QWEN3 + "Qwen3DecoderLayer", _QWEN3 + "Qwen3ForCausalLM"),
    "Qwen3MoeForCausalLM": Seam(_QWEN3_MOE + "Qwen3MoeDecoderLayer", _QWEN3_MOE + "Qwen3MoeForCausalLM"),
    "DeepseekV2ForCausalLM": _DEEPSEEK_SEAM,
    "DeepseekV3ForCausalLM": _DEEPSEEK_SEAM,
    "DeepseekV32ForCausalLM": _DEEPSEEK_SEAM,
}
