"""A small deployment as a file that tests spoil in one place."""

from __future__ import annotations

from pathlib import Path

TEXT = """\
schema: commplan/deployment/v1
name: small
model: qwen3-0.6b
hardware: cpu-gloo
executor: transformers
parallelism: {tp: 2, attn_dp: 1, ep: 1, moe_backend: tensor_parallel}
dtypes: {weights: fp32, activations: fp32, kv_cache: fp32}
modes:
  prefill: {tokens: [1, 64], sequence_tokens: 32, prefix_tokens: 0}
  decode: {tokens: [1, 8], context_tokens: 128}
numerics: {loosest: reordered, error_budget: null, pin: [], forbid: []}
limits: {activation_memory_gb: null}
search: {range_tolerance: 0.005}
"""


def deployment(folder: Path, *replacements: tuple[str, str], name: str = "small.yaml") -> Path:
    """The file, with every `(old, new)` replaced; each old text must be there once."""
    text = TEXT
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the deployment"
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path
