"""Of pipeline stages the one with least room decides: its layers, the embedding on the first, the head on the last."""

from __future__ import annotations

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.fit.parts import Cache, stages_of, weight_bytes
from commplan.planner.fit.verdict import fit
from commplan.planner.fit.words import as_json, line, ways_out

from ..tiny_setups import dense_model, latent_model

R1, QWEN = "deepseek-r1-2xh200nodes-tp16", "qwen3-235b-h200-tp8"
MODELS = {
    "dense": dense_model(7),
    "latent": latent_model(7),
    "linear": dense_model(7)
    | {"linear_attention_layers": [0, 1, 2, 4, 5, 6], "linear_num_key_heads": 8, "linear_num_value_heads": 16}
    | {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4},
}


def setup_of(folder, model, pp: int):
    return folder.setup(model, parallelism={"tp": 2, "pp": pp}, executor="plan_only")


@pytest.mark.parametrize("pp", [2, 3, 4])
@pytest.mark.parametrize("name", MODELS)
def test_stages_hold_what_one_stage_holds_between_them(folder, name, pp):
    one, more = setup_of(folder, MODELS[name], 1), setup_of(folder, MODELS[name], pp)
    held = [weight_bytes(more, stage) for stage in stages_of(more)]
    whole = weight_bytes(one)
    assert {part: sum(each.get(part, 0.0) for each in held) for part in whole} == whole
    assert [("embedding" in each, "head" in each) for each in (held[0], held[-1])] == [(True, False), (False, True)]
    assert not any({"embedding", "head"} & set(each) for each in held[1:-1])
    caches = [Cache(more, stage) for stage in stages_of(more)]
    assert sum(cache.token_bytes for cache in caches) == Cache(one).token_bytes
    assert sum(cache.request_bytes for cache in caches) == pytest.approx(Cache(one).request_bytes)


def test_a_tied_head_is_a_copy_on_the_last_stage(folder):
    tied = dense_model(4) | {"tie_word_embeddings": True}
    assert "head" not in weight_bytes(setup_of(folder, tied, 1))
    first, last = (weight_bytes(each, stage) for each in [setup_of(folder, tied, 2)] for stage in stages_of(each))
    assert last["head"] == first["embedding"] and "head" not in first


def test_the_stage_with_least_room_is_told(folder):
    """R1 in two stages: 31 layers, three of them dense, and the embedding; 30 layers of experts and the head."""
    setup = load_setup(R1, ("parallelism.tp=8", "parallelism.pp=2"))
    of_stages = [sum(weight_bytes(setup, stage).values()) for stage in stages_of(setup)]
    found = fit(setup)
    assert found.stage == (1, 2) and found.layers == (31, 61)
    assert found.weight_bytes == of_stages[0] < of_stages[1]  # fewer weights, but a layer more of KV cache
    each = [Cache(setup, stage).token_bytes for stage in stages_of(setup)]
    rooms = [int((found.static - held) / token) for held, token in zip(of_stages, each, strict=True)]
    assert found.kv_tokens_left == min(rooms) == rooms[0]
    assert "Memory of a rank of stage 1 of 2, which has least room (31 layers): " in line(found)
    assert as_json(found)["stage"] == [1, 2]


def test_a_stage_without_a_cache_of_tokens_is_not_the_one_that_has_no_room_for_any(folder):
    found = fit(setup_of(folder, MODELS["linear"], 2))
    assert found.token_bytes > 0 and found.fits


def test_one_stage_is_told_as_before(folder):
    found = fit(load_setup(R1))
    assert found.stage is None and line(found).startswith("Memory of a rank: ")
    assert as_json(found)["stage"] is None


def test_more_stages_are_a_way_out_for_an_executor_that_has_them():
    few = ("parallelism.tp=2",)
    planned, run = (load_setup(QWEN, (*few, f"executor={name}")) for name in ("plan_only", "transformers"))
    assert "parallelism.pp=2" in list(ways_out(planned, fit(planned)))
    assert not any("pp" in way for way in ways_out(run, fit(run)))
    widened = load_setup(QWEN, (*few, "executor=plan_only", "parallelism.pp=2"))
    assert fit(widened).misses != "weights"
