"""torch.compile: one whole graph per mode and range, the same logits, and counters that count every replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.strategy.file import LayerShape, Op, Parallelism, RangePlan, State
from commplan.runtime.bound.sizes import rows_into, sizes_of

from ..parity import Named
from ..strategy_files import latent_width, ranges_of, read_config, strategy_file, uniform
from ..world import RankWorld
from .compiled import SHAPES, STEPS, compiled, refusal_to_compile

NONE, AR, RS, AG = Op("none"), Op("all_reduce"), Op("reduce_scatter"), Op("all_gather")
LATENT = {0: Op("latent_all_gather", producer="embed_out"), 1: Op("latent_all_gather", producer="previous.mlp_out")}


def two_ranges(folder: Path, edge: int) -> list[RangePlan]:
    """All-reduce up to `edge` tokens; above it sharded norms, and a late gather where the model has latents."""
    latent = latent_width(read_config(folder)) > 0
    small = ranges_of([AR, *([NONE, AR, NONE, AR] * 2), NONE], 1, edge)
    layers = [[LATENT[layer] if latent else AG, RS, AG, RS] for layer in range(2)]
    return [small, ranges_of([RS, *layers[0], *layers[1], AG], edge + 1, 256)]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "deepseek_v3", "glm_moe_dsa", "minimax_m2"])
def test_every_mode_and_range_is_one_graph_that_counts_its_replays(
    family: str, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint(family)
    modes = {"prefill": two_ranges(folder, 8), "decode": two_ranges(folder, 2)}
    plan = Named("two ranges", strategy_file(folder, Parallelism(2), modes))
    for done in world(2).run(compiled, str(folder), plan):
        assert done.error <= 2e-5
        assert sorted(done.graphs) == [("decode", 0), ("decode", 1), ("prefill", 0), ("prefill", 1)]
        assert done.compiled_counts == done.eager_counts
        ran = sum(calls for key, (calls, _) in done.compiled_counts.items() if key[1:3] == (1, "mlp_out"))
        assert ran == len(SHAPES) * (1 + STEPS)


@pytest.mark.slow
def test_a_model_that_transformers_does_not_compile_is_refused(
    checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint("deepseek_v4")
    plan = uniform(folder, Parallelism(2), "all_reduce", folder)
    for said in world(2).run(refusal_to_compile, str(folder), plan):
        assert "compile: transformers does not compile this model in one graph" in said


def test_rows_that_enter_a_boundary_follow_from_the_layouts() -> None:
    p = Parallelism(8, 2)
    sizes = sizes_of(p, 5, 7)
    assert (sizes.shard, sizes.group, sizes.total) == (2, 8, 16)
    dense, sharded = LayerShape(), LayerShape(all_to_all=True)
    assert rows_into("attn_out", None, dense, p, sizes) == 8
    assert rows_into("mlp_out", None, dense, p, sizes) == 16
    assert rows_into("mlp_out", None, sharded, p, sizes) == 2
    assert rows_into("mlp_in", State("token_sharded", "replicated"), dense, p, sizes) == 2
