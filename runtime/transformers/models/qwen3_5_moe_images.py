"""Qwen3.5 with images, with experts: as published. transformers loads its text as a model of its own."""

from dataclasses import replace

from .qwen3_5_moe import ADAPTER as TEXT

ADAPTER = replace(TEXT, architecture="Qwen3_5MoeForConditionalGeneration", model_type="qwen3_5_moe")
