"""An op by an impl that cannot perform it where it stands is refused with the reason; no hardware file is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from commplan.planner.answers.validation import validate
from commplan.planner.strategy.file import load
from commplan.planner.strategy.file.writing import dump

WITH_NORM = "{all_reduce: {impl: commplan_triton_norm}}"
GATHER = "{int8_all_reduce: {algorithm: gather, impl: commplan_triton_norm}}"
TWO_SHOT = "{int8_all_reduce: {algorithm: two_shot, impl: commplan_triton}}"
SCATTER = "{reduce_scatter: {impl: commplan_triton_norm}}"
STAMP = "num_hidden_layers: 2, hidden_size: 256, latent_width: 0, fingerprint: abc"
LAYERS = f"""\
    - {{layers: 0, attn_out: {WITH_NORM}, mlp_out: {GATHER}}}
    - {{layers: 1, attn_out: {TWO_SHOT}, mlp_out: {SCATTER}}}
"""
FILE = f"""\
schema: commplan/strategy/v1
model: {{name: tiny, role: target, architecture: Qwen3ForCausalLM, {STAMP}}}
hardware: {{name: invented, backend: nccl, fingerprint: abc}}
deployment: {{name: tiny, activations: bf16, fingerprint: abc}}
executor: transformers
parallelism: {{tp: 2, attn_dp: 1, ep: 1, moe_backend: tensor_parallel}}
numerics: quantized
modes:
  prefill:
  - tokens: [1, 64]
    embed_out: {{all_reduce: {{impl: commplan_triton}}}}
    layers:
{LAYERS}\
    head_in: {{all_gather: {{impl: commplan_triton}}}}
end: true
"""


def problems(folder: Path, *changes: tuple[str, str]) -> list[tuple[str, str]]:
    text = FILE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "plan.yaml"
    path.write_text(text)
    return [(p.field, p.reason) for p in validate(path)]


def test_a_plan_by_kernels_of_our_own_is_legal_and_written_as_it_was_read(tmp_path):
    assert problems(tmp_path) == []
    assert dump(load(tmp_path / "plan.yaml")) == FILE


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        (
            "embed_out: {all_reduce: {impl: commplan_triton}}",
            "embed_out: {all_reduce: {impl: commplan_triton_norm}}",
            "embed_out",
            "commplan_triton_norm does the residual add and norm too, and at embed_out there is no residual yet",
        ),
        (
            "activations: bf16",
            "activations: fp32",
            "embed_out",
            "commplan_triton takes bf16 or fp16 activations, not fp32",
        ),
        ("backend: nccl", "backend: gloo", "embed_out", "runs on nvidia, not where gloo is the backend"),
        (
            "hidden_size: 256",
            "hidden_size: 250",
            "embed_out",
            "takes rows of a multiple of 16 elements, and these have 250",
        ),
        ("{tp: 2,", "{tp: 16,", "embed_out", "runs over up to 8 ranks, and this group has 16"),
        (
            "head_in: {all_gather: {impl: commplan_triton}}",
            "head_in: {all_gather: {impl: commplan_triton_norm}}",
            "head_in",
            "executor transformers has no impl commplan_triton_norm of all_gather",
        ),
        ("executor: transformers", "executor: sglang", "head_in", "SGLang picks the rows that need logits"),
    ],
    ids=["norm at embed_out", "fp32", "gloo", "250 columns", "16 ranks", "a gather with a norm", "sglang"],
)
def test_a_kernel_where_it_cannot_run_is_refused(tmp_path, old, new, field, reason):
    found = problems(tmp_path, (old, new))
    assert found
    assert found[0][0] == f"modes.prefill[0].{field}"
    assert reason in found[0][1]


def test_eight_ranks_of_sixteen_may_use_the_kernels_within_their_dp_group(tmp_path):
    """The sums of attention run over the 8 ranks of a DP group, that of the MLP over all 16."""
    attention = "attn_out: {all_reduce: {impl: commplan_triton}}, mlp_in: all_gather"
    layers = f"    - {{layers: 0-1, {attention}, mlp_out: {{all_reduce: {{impl: commplan_triton}}}}}}\n"
    changes = (
        ("{tp: 2, attn_dp: 1,", "{tp: 16, attn_dp: 2,"),
        (LAYERS, layers),
        ("head_in: {all_gather: {impl: commplan_triton}}", "head_in: all_gather"),
    )
    ((field, reason),) = problems(tmp_path, *changes)
    assert field == "modes.prefill[0].layers.0.mlp_out"
    assert reason == "commplan_triton runs over up to 8 ranks, and this group has 16"
