"""Weights: the published parameter counts, and a rank's share as it comes out when every tensor is cut by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from commplan.planner.descriptions.loader import load_model, load_setup, preset_names
from commplan.planner.descriptions.weights import matrices, parameters
from commplan.planner.fit.parts import weight_bytes

from ..tiny_setups import Machine, dense_model, latent_model

# Billions, as the model cards on Hugging Face state them; DeepSeek's without the MTP layer, Qwen3.5's without vision.
PUBLISHED = {
    "qwen2.5-7b": (7.61, "Qwen/Qwen2.5-7B-Instruct: Number of Parameters: 7.61B"),
    "qwen2.5-72b": (72.7, "Qwen/Qwen2.5-72B-Instruct: Number of Parameters: 72.7B"),
    "qwen3-0.6b": (0.6, "Qwen/Qwen3-0.6B: Number of Parameters: 0.6B"),
    "qwen3-8b": (8.2, "Qwen/Qwen3-8B: Number of Parameters: 8.2B"),
    "qwen3-32b": (32.8, "Qwen/Qwen3-32B: Number of Parameters: 32.8B"),
    "qwen3-30b-a3b": (30.5, "Qwen/Qwen3-30B-A3B: Number of Parameters: 30.5B in total"),
    "qwen3-235b-a22b": (235, "Qwen/Qwen3-235B-A22B: Number of Parameters: 235B in total"),
    "qwen3.5-397b-a17b": (397, "Qwen/Qwen3.5-397B-A17B: its name"),
    "deepseek-v2-lite": (15.7, "DeepSeek-V2 report, arXiv 2405.04434: 15.7B in total"),
    "deepseek-v2": (236, "DeepSeek-V2 report, arXiv 2405.04434: 236B in total"),
    "deepseek-v3": (671, "DeepSeek-V3 report, arXiv 2412.19437: 671B in total"),
    "deepseek-r1": (671, "deepseek-ai/DeepSeek-R1: 671B, the structure of V3"),
    "deepseek-v3.2": (671, "V3 with an indexer"),
    "deepseek-v4-flash": (284, "deepseek-ai/DeepSeek-V4-Flash: 284B in total"),
    "deepseek-v4-pro": (1600, "deepseek-ai/DeepSeek-V4-Pro: 1.6T in total"),
    "glm-4.5": (355, "zai-org/GLM-4.5: 355B in total"),
    "glm-5": (744, "zai-org/GLM-5: 744B in total"),
    "glm-5.2": (744, "GLM-5 with fewer indexers"),
    "gpt-oss-120b": (117, "openai/gpt-oss-120b: 117B in total"),
    "kimi-k2": (1040, "Kimi-K2 report, arXiv 2507.20534: 1.04T in total"),
    "kimi-k2.5": (1040, "Kimi-K2 with a vision tower, which is not counted"),
    "kimi-k3": (2780, "by its file alone: no figure was seen but that it exceeds 2500"),
    "llama-3.1-70b": (70.6, "meta-llama/Llama-3.1-70B: 70.6B"),
    "llama-4-maverick": (400, "meta-llama/Llama-4-Maverick-17B-128E: 400B in total"),
    "mimo-v2-flash": (309, "XiaomiMiMo/MiMo-V2-Flash: 309B in total"),
    "minimax-m2.5": (229, "MiniMaxAI/MiniMax-M2.5: 229B in its safetensors"),
    "minimax-m3": (428, "MiniMaxAI/MiniMax-M3: 428B in total, vision included"),
    "qwen3-coder-480b-a35b": (480, "Qwen/Qwen3-Coder-480B-A35B-Instruct: 480B in total"),
    "qwen3-next-80b-a3b": (80, "Qwen/Qwen3-Next-80B-A3B-Instruct: 80B in total"),
    "qwen3-vl-235b-a22b": (235, "Qwen/Qwen3-VL-235B-A22B-Instruct: its name; without vision"),
    "qwen3.5-27b": (27, "Qwen/Qwen3.5-27B: its name; without vision"),
    "qwen3.5-35b-a3b": (35, "Qwen/Qwen3.5-35B-A3B: its name; without vision"),
}


@pytest.mark.parametrize("name", preset_names("models"))
def test_parameters_are_as_many_as_were_published(name):
    billions, source = PUBLISHED[name]
    assert parameters(load_model(name)) / 1e9 == pytest.approx(billions, rel=0.02), source


# ---- a rank's share, tensor by tensor --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """[rows, columns], cut along one axis into `pieces`; this rank holds `copies` of its piece."""

    rows: int
    columns: int
    axis: int | None = None
    pieces: int = 1
    copies: int = 1

    @property
    def held(self) -> int:
        rows = math.ceil(self.rows / self.pieces) if self.axis == 0 else self.rows
        columns = self.columns // self.pieces if self.axis == 1 else self.columns
        return rows * columns * self.copies


def gated(hidden: int, width: int, pieces: int, copies: int = 1) -> list[Tensor]:
    up = Tensor(width, hidden, 0, pieces, copies)
    return [up, up, Tensor(hidden, width, 1, pieces, copies)]


def dense_rank(layers: int, tp: int, attn_tp: int) -> list[Tensor]:
    """Qwen3 of tiny_setups: 16 heads and 8 key-value heads of 32, hidden 256, MLP 768, 1024 tokens; norms apart."""
    layer = [
        Tensor(512, 256, 0, attn_tp),
        *[Tensor(256, 256, 0, min(attn_tp, 8))] * 2,
        Tensor(256, 512, 1, attn_tp),
        *gated(256, 768, tp),
        *[Tensor(1, 256)] * 2,
    ]
    return [*[Tensor(1024, 256, 0, tp)] * 2, Tensor(1, 256), *layer * layers]


@pytest.mark.parametrize(("tp", "attn_dp"), [(1, 1), (2, 1), (8, 1), (16, 1), (8, 4), (8, 8)])
def test_a_rank_holds_its_piece_of_every_tensor_of_a_dense_model(folder, tp, attn_dp):
    setup = folder.setup(dense_model(3), Machine(devices_per_node=16), tp=tp, attn_dp=attn_dp)
    held = sum(tensor.held for tensor in dense_rank(3, tp, tp // attn_dp))
    assert sum(weight_bytes(setup).values()) == 2 * held


def latent_rank(tp: int, attn_tp: int, ep: int, whole: bool) -> list[Tensor]:
    """MLA of tiny_setups, two layers: one dense MLP of 768, one of 16 experts of 128 and a shared one of 256."""
    attention = [
        Tensor(96, 256),
        Tensor(1, 96),
        Tensor(16 * 48, 96, 0, attn_tp),
        Tensor(48, 256),
        Tensor(1, 32),
        Tensor(16 * 64, 32, 0, attn_tp),
        Tensor(256, 16 * 32, 1, attn_tp),
        *[Tensor(1, 256)] * 2,
    ]
    experts = [Tensor(16, 256), *gated(256, 128, 1 if whole else tp // ep, 16 // ep)]
    shared = gated(256, 256, 1 if whole else tp)
    return [
        *[Tensor(1024, 256, 0, tp)] * 2,
        Tensor(1, 256),
        *attention * 2,
        *gated(256, 768, tp),
        *experts,
        *shared,
    ]


@pytest.mark.parametrize(
    ("tp", "attn_dp", "ep", "backend"),
    [
        (1, 1, 1, "tensor_parallel"),
        (4, 1, 1, "tensor_parallel"),
        (4, 2, 2, "tensor_parallel"),
        (4, 1, 4, "tensor_parallel"),
        (4, 1, 4, "all_to_all"),
    ],
)
def test_a_rank_holds_its_piece_of_every_tensor_of_a_latent_model(folder, tp, attn_dp, ep, backend):
    model = latent_model(shared_expert_intermediate_size=256)
    setup = folder.setup(model, tp=tp, attn_dp=attn_dp, ep=ep, moe_backend=backend, executor="plan_only")
    held = sum(tensor.held for tensor in latent_rank(tp, tp // attn_dp, ep, backend == "all_to_all"))
    assert sum(weight_bytes(setup).values()) == 2 * held


def test_ranks_hold_the_whole_model_between_them_but_for_what_each_repeats():
    setup = load_setup("deepseek-r1-h20-tp8")
    whole = parameters(setup.model)
    repeated = sum(m.parameters for m in matrices(setup.model, setup.parallelism) if m.ranks == 1)
    held = sum(m.parameters for m in matrices(setup.model, setup.parallelism))
    assert 8 * held - 7 * repeated == whole


# ---- types -----------------------------------------------------------------------------------------------------------


def bytes_of(*overrides: str) -> dict[str, float]:
    return dict(weight_bytes(load_setup("deepseek-r1-h20-tp8", overrides)))


def test_embedding_head_router_and_norms_stay_in_the_type_of_the_activations():
    fp8, bf16 = bytes_of(), bytes_of("dtypes.weights=bf16")
    for part in ("embedding", "head", "router", "norms"):
        assert fp8[part] == bf16[part]
    for part in ("attention", "dense_mlp", "experts", "shared_experts"):
        assert bf16[part] == 2 * fp8[part]


def test_four_bits_take_half_a_byte_and_their_scales():
    fp8, int4, mxfp4 = bytes_of(), bytes_of("dtypes.weights=w4a16"), bytes_of("dtypes.weights=mxfp4")
    assert int4["experts"] / fp8["experts"] == pytest.approx(0.5 + 2 / 128)
    assert mxfp4["experts"] / fp8["experts"] == pytest.approx(0.5 + 1 / 32)


def test_a_smaller_group_has_more_scales():
    coarse, fine = (bytes_of("dtypes.weights=w4a16", f"dtypes.weight_block=[1, {n}]") for n in (128, 32))
    assert fine["experts"] / coarse["experts"] == pytest.approx((0.5 + 2 / 32) / (0.5 + 2 / 128))


def test_a_stack_of_layers_is_weighed_alone():
    whole, stack = bytes_of(), bytes_of("loaded_layers=3")
    assert "experts" not in stack  # the first three layers are dense
    assert stack["dense_mlp"] == whole["dense_mlp"]
    assert stack["attention"] == pytest.approx(whole["attention"] * 3 / 61)
