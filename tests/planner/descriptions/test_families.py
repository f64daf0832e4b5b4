"""What the config.json files of the families say of each layer; what is refused, and the way out that is named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.descriptions.loader import load_model, load_setup
from commplan.planner.descriptions.weights import parameters
from commplan.planner.fit.parts import Cache, weight_bytes
from commplan.planner.strategy.architectures import every, known

from ..cli.commandline import answer, refused, run

CONFIGS = Path(__file__).parent / "hf_configs"

# Attention of the layers, counted by hand from the published lists, intervals and ratios.
KINDS = {
    "llama-3.1-70b": {"full_attention": 80},
    "gpt-oss-120b": {"sliding_attention": 18, "full_attention": 18},
    "qwen3.5-27b": {"linear_attention": 48, "full_attention": 16},
    "qwen3-next-80b-a3b": {"linear_attention": 36, "full_attention": 12},
    "glm-4.5": {"full_attention": 92},
    "glm-5": {"indexed_attention": 78},
    "glm-5.2": {"indexed_attention": 21, "reused_index_attention": 57},
    "kimi-k2.5": {"full_attention": 61},
    "kimi-k3": {"linear_attention": 69, "full_attention": 24},
    "minimax-m2.5": {"full_attention": 62},
    "minimax-m3": {"full_attention": 3, "indexed_attention": 57},
    "mimo-v2-flash": {"sliding_attention": 39, "full_attention": 9},
    "llama-4-maverick": {"sliding_attention": 36, "full_attention": 12},
    "deepseek-v4-flash": {
        "sliding_attention": 2,
        "compressed_sparse_attention": 21,
        "heavily_compressed_attention": 20,
    },
    "deepseek-v4-pro": {"compressed_sparse_attention": 30, "heavily_compressed_attention": 31},
}
DENSE_LAYERS = {"glm-4.5": 3, "glm-5.2": 3, "kimi-k3": 1, "minimax-m3": 3, "mimo-v2-flash": 1, "llama-4-maverick": 24}


@pytest.mark.parametrize("name", KINDS)
def test_every_layer_attends_to_what_the_file_says(name: str) -> None:
    model = load_model(name)
    assert Counter(model.attention_kind(layer) for layer in range(model.num_hidden_layers)) == KINDS[name]
    dense = sum(model.mlp_kind(layer) == "dense" for layer in range(model.num_hidden_layers))
    assert not model.is_moe or dense == DENSE_LAYERS.get(name, {"kimi-k2.5": 1, "glm-5": 3}.get(name, 0))


def test_the_stream_of_deepseek_v4_is_four_and_its_sum_is_one() -> None:
    assert answer("plan", "deepseek-v4-pro-b200-tp8")["modes"]
    for name in ("deepseek-v4-flash", "deepseek-v4-pro"):
        assert load_model(name).residual_streams == 4


def written(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def changed(folder: Path, name: str, **fields: Any) -> Path:
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    config.get("text_config", config).update(fields)
    return written(folder, config)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("qwen3-32b", {"hc_mult": 4}),
        ("llama-3.1-70b", {"kv_lora_rank": 512}),
        ("glm-4.5", {"index_topk": 2048}),
        ("qwen3.5-27b", {"sparse_attention_config": {"sparse_block_size": 64}}),
        ("kimi-k2", {"linear_attn_config": {"num_heads": 8}}),
        ("llama-3.1-70b", {"layer_types": ["full_attention", "sliding_attention"] * 40}),
    ],
)
def test_a_field_that_changes_what_is_computed_is_not_dropped(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    error = refused("import-model", changed(tmp_path, name, **fields))
    (field,) = fields
    assert error["field"].removeprefix("text_config.") == field
    assert "does not know it" in error["message"] and "null" in error["message"]


@pytest.mark.parametrize("value", [None, 0, False, [], ["full_attention"] * 80])
def test_a_field_that_says_nothing_is_let_pass(value: Any, tmp_path: Path) -> None:
    path = changed(tmp_path, "llama-3.1-70b", layer_types=value, hc_mult=value if value != [] else None)
    if isinstance(value, list) and value:
        path = changed(tmp_path, "llama-3.1-70b", layer_types=value)
    assert load_model(str(path)).num_hidden_layers == 80


def test_windows_that_are_used_are_read(tmp_path: Path) -> None:
    path = changed(tmp_path, "qwen3-32b", use_sliding_window=True, sliding_window=4096, max_window_layers=60)
    model = load_model(str(path))
    assert (model.sliding_attention_layers, model.sliding_window) == ((60, 61, 62, 63), 4096)


REFUSED = {name: a.refused for name, a in every().items() if a.refused is not None}


def test_two_architectures_are_refused_for_what_their_layers_are() -> None:
    assert set(REFUSED) == {"Gemma4ForConditionalGeneration", "NemotronHForCausalLM"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_why_and_names_the_way_out(name: str, tmp_path: Path) -> None:
    error = refused("import-model", written(tmp_path, {"architectures": [name], "hidden_size": 2816}))
    assert error["kind"] == "unsupported_architecture"
    assert "no layer that is described here" in error["message"]
    assert "docs/models.md" in error["message"] and "plan_only" in error["message"]
    assert name not in known()


# ---- a plain decoder of another name ---------------------------------------------------------------------------------

SIZES = {
    "architectures": ["OlmoForCausalLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "vocab_size": 50304,
}


def test_an_unknown_architecture_is_refused_by_a_sentence_that_offers_the_plain_reading(tmp_path: Path) -> None:
    error = refused("import-model", written(tmp_path, SIZES | {"intermediate_size": 8192}))
    assert "--plain dense" in error["message"]


@pytest.mark.parametrize(
    ("plain", "fields"),
    [
        ("dense", {"intermediate_size": 8192}),
        ("moe", {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 4096}),
    ],
)
def test_a_plain_decoder_is_planned_and_says_what_it_is(plain: str, fields: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "model.yaml"
    answer("import-model", written(tmp_path, SIZES | fields), "--plain", plain, "-o", out)
    model = load_model(str(out))
    assert (model.architecture, model.is_moe) == ("OlmoForCausalLM", plain == "moe")
    assert "plain decoder" in model.assumed[0]
    options = [f"--set={text}" for text in (f"model={out}", "executor=plan_only", "hardware=h200-8")]
    report = run("plan", "qwen3-0.6b-cpu-tp2", *options, "--set=dtypes.activations=bf16", "--set=dtypes.weights=bf16")
    assert (report.code, "plain decoder" in report.err) == (0, True), report
    error = refused("plan", "qwen3-0.6b-cpu-tp2", f"--set=model={out}")  # executor: transformers
    assert "plan_only" in error["message"]


def test_a_plain_reading_refuses_what_is_not_plain(tmp_path: Path) -> None:
    config = SIZES | {"intermediate_size": 8192, "hybrid_override_pattern": "ME*"}
    error = refused("import-model", written(tmp_path, config), "--plain", "dense")
    assert error["field"] == "hybrid_override_pattern"
    assert "a plain decoder" in error["message"]


# ---- sizes that do not divide, types, caches -------------------------------------------------------------------------


def test_four_ranks_cut_a_block_of_gpt_oss_and_the_error_names_what_would_do() -> None:
    """2880 over 4 are 720: 22.5 blocks of 32."""
    error = refused("plan", "gpt-oss-120b-rtx-pro-6000-tp2", "--set=parallelism.tp=4")
    assert "shards of 720" in error["message"] and "ep 4" in error["message"]
    assert answer("plan", "gpt-oss-120b-rtx-pro-6000-tp2", "--set=parallelism.tp=4", "--set=parallelism.ep=4")["modes"]


def test_a_checkpoint_of_two_types_is_weighed_by_both() -> None:
    """DeepSeek-V4: experts in FP4 with a scale for each 32, attention and shared experts in FP8."""
    setup = load_setup("deepseek-v4-pro-b200-tp8")
    held, whole = weight_bytes(setup), parameters(setup.model)
    fp8 = dict(weight_bytes(load_setup("deepseek-v4-pro-b200-tp8", ("dtypes.weights=fp8",))))
    assert held["experts"] == pytest.approx(fp8["experts"] * (0.5 + 1 / 32))
    assert held["attention"] == fp8["attention"]
    assert 0.53 * whole < 8 * sum(held.values()) < 0.6 * whole


def test_weights_of_the_other_type_need_its_rate() -> None:
    error = refused("plan", "deepseek-v4-pro-b200-tp8", "--set=hardware=a100-8")
    assert "gives no fp8 rate" in error["message"]


def test_a_window_ends_what_a_layer_caches() -> None:
    """gpt-oss: every second layer keeps 128 positions of a request, whatever its context is."""
    setup = load_setup("gpt-oss-120b-rtx-pro-6000-tp2")
    cache, row = Cache(setup), 2 * 4 * 64 * 2  # keys and values of four heads of 64, two bytes
    assert cache.token_bytes == 18 * row
    assert cache.request_bytes == 18 * 128 * row
    short = Cache(
        load_setup("gpt-oss-120b-rtx-pro-6000-tp2", ("modes={decode: {tokens: [1, 8], context_tokens: 63}}",))
    )
    assert short.request_bytes == 18 * 64 * row  # no longer than the context, with the token itself


def test_pooled_positions_take_their_share_of_the_cache() -> None:
    """V4-Pro: 30 layers hold an entry of 512 for four positions and an index key of 132, 31 an entry for 128."""
    cache = Cache(load_setup("deepseek-v4-pro-b200-tp8"))
    assert cache.token_bytes == pytest.approx(30 * (512 + 132) / 4 + 31 * 512 / 128)
    assert cache.request_bytes == 61 * 128 * 512


def test_latents_are_gathered_in_all_layers_or_in_none() -> None:
    assert load_model("kimi-k3").latent_width == 0  # 69 of 93 layers have none
    assert load_model("glm-5.2").latent_width == 2048 + 512 + 64 + 128 + 32


# ---- drafts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v4-flash", "qwen3.5-27b", "glm-5.2", "minimax-m2.5"])
def test_mtp_layers_are_planned_in_a_role_of_their_own(name: str) -> None:
    target = load_model(name)
    options = [f"--set={text}" for text in (f"model={name}", "model_role=mtp", "hardware=h200-8", "executor=plan_only")]
    types = [f"--set=dtypes.{text}" for text in ("weights=bf16", "activations=bf16")]
    planned = load_setup("qwen3-0.6b-cpu-tp2", tuple(text.removeprefix("--set=") for text in (*options, *types)))
    assert planned.model.num_hidden_layers == target.num_nextn_predict_layers
    assert planned.model.attention_kind(0) not in ("linear_attention", "reused_index_attention")
    assert planned.model.is_moe == target.is_moe
    out = run("plan", "qwen3-0.6b-cpu-tp2", *options, *types)
    assert (out.code, f"{target.name} MTP" in out.out) == (0, True), out


def test_a_draft_reads_the_target_s_row_beside_its_own_token() -> None:
    """DeepSeek-V3's report counts 14B of an MTP module, embedding and head among them: 11.5B and a projection."""
    draft = load_model("deepseek-v3").drafts()
    alone = parameters(draft)
    assert 13e9 < alone < 14e9
    assert alone - parameters(draft.model_copy(update={"takes_target_rows": False})) == 2 * 7168 * 7168


def test_a_model_without_mtp_layers_has_no_such_role() -> None:
    error = refused("plan", "qwen3-32b-h200-tp2", "--set=model_role=mtp")
    assert error["field"] == "model_role"
    assert "names no MTP layers" in error["message"]
    said = ["--set=model_role=mtp", "--set=model.num_nextn_predict_layers=1", "--set=executor=plan_only"]
    assert answer("plan", "qwen3-32b-h200-tp2", *said)["modes"]


# ---- the server that a plan is held against --------------------------------------------------------------------------


@pytest.mark.parametrize("hardware", ["b200-8", "mi300x-8", "ascend-a3-16", "l40s-8"])
@pytest.mark.parametrize("split", ["attn_dp: 1", "attn_dp: 2", "attn_dp: 8", "ep: 8, moe_backend: all_to_all"])
def test_the_stock_server_has_a_forward_of_four_streams_on_every_machine(hardware: str, split: str) -> None:
    """Rules that fold a residual into a sum gather it instead."""
    options = [
        "model=deepseek-v4-flash",
        f"hardware={hardware}",
        f"parallelism={{tp: 8, {split}}}",
        "dtypes.weights=bf16",
        "dtypes.kv_cache=bf16",
    ]
    modes = answer("plan", "deepseek-v4-pro-b200-tp8", *(f"--set={text}" for text in options))["modes"]
    assert all(ranges[-1]["stock_us"] for ranges in modes.values())
