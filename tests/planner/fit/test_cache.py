"""The KV cache of a rank, counted tensor by tensor and request by request."""

from __future__ import annotations

import math

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.fit.parts import Cache

from ..tiny_setups import Machine, dense_model, latent_model

SIXTEEN = Machine(devices_per_node=16)
HYBRID = dense_model(4) | {
    "linear_attention_layers": [0, 1, 2],
    "linear_num_key_heads": 8,
    "linear_num_value_heads": 16,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}


@pytest.mark.parametrize(("tp", "attn_dp", "heads"), [(1, 1, 8), (4, 1, 2), (8, 1, 1), (16, 1, 1), (8, 4, 4)])
def test_a_token_costs_keys_and_values_of_the_heads_that_a_rank_has(folder, tp, attn_dp, heads):
    cache = Cache(folder.setup(dense_model(3), SIXTEEN, tp=tp, attn_dp=attn_dp))
    assert cache.token_bytes == 3 * 2 * heads * 32 * 2  # layers, keys and values, heads, head_dim, bf16
    assert cache.request_bytes == 0


@pytest.mark.parametrize("tp", [1, 8])
def test_latents_are_held_whole_on_every_rank(folder, tp):
    assert Cache(folder.setup(latent_model(3), tp=tp)).token_bytes == 3 * (32 + 16) * 2


def test_the_cache_of_r1_takes_what_is_known_of_it():
    """70 KB a token: 61 layers of 512 + 64 elements in bf16, as DeepSeek's report has it."""
    assert Cache(load_setup("deepseek-r1-h20-tp8")).token_bytes == 61 * 576 * 2 == 70272


def test_an_index_key_and_its_scale_come_to_the_latents():
    v3, v32 = (Cache(load_setup(f"deepseek-{name}-a3-tp16")).token_bytes for name in ("v3", "v3.2"))
    assert v32 - v3 == 61 * (128 + 4)


def test_a_cache_of_eight_bits_takes_half():
    whole, half = (Cache(load_setup("qwen3-32b-h200-tp2", s)) for s in ((), ("dtypes.kv_cache=fp8",)))
    assert half.token_bytes == whole.token_bytes / 2


def test_linear_attention_has_a_state_per_request_and_none_per_token(folder):
    cache = Cache(folder.setup(HYBRID, tp=4, dtypes={"activations": "bf16"}, executor="plan_only"))
    state = 16 * 32 * 16 * 4  # value heads, [key, value], fp32
    window = 3 * (2 * 8 * 32 + 16 * 16) * 2  # the last inputs of the convolution
    assert cache.request_bytes == 3 * (state + window) / 4
    assert cache.token_bytes == 1 * 2 * 2 * 32 * 2  # the one layer of full attention


@pytest.mark.parametrize(("tokens", "attn_dp"), [(1, 1), (7, 1), (256, 1), (7, 4), (256, 4)])
def test_a_decode_step_asks_for_the_context_of_each_request_of_a_group(folder, tokens, attn_dp):
    asked = Cache(folder.setup(dense_model(), tp=4, attn_dp=attn_dp)).asked("decode", tokens)
    requests = math.ceil(tokens / attn_dp)
    assert (asked.requests, asked.tokens) == (requests, requests * (128 + 1))  # and the new token


def test_a_prefill_asks_for_its_own_tokens_and_the_prefix(folder):
    modes = {"prefill": {"tokens": [1, 4096], "sequence_tokens": 64, "prefix_tokens": 1000}}
    asked = Cache(folder.setup(dense_model(), tp=4, modes=modes)).asked("prefill", 200)
    assert (asked.requests, asked.tokens) == (4, 200 + 4 * 1000)
