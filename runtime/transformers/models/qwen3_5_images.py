"""Qwen3.5 with images: as published. transformers loads its text as a model of its own."""

from dataclasses import replace

from .qwen3_5 import ADAPTER as TEXT

ADAPTER = replace(TEXT, architecture="Qwen3_5ForConditionalGeneration", model_type="qwen3_5")
