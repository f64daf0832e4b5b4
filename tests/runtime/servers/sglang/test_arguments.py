"""Server arguments against a plan, without a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from commplan.planner.strategy.file import (
    HardwareStamp,
    LayerOps,
    ModelStamp,
    RangePlan,
    StrategyFile,
    problems,
)
from commplan.planner.strategy.layout import BOUNDARIES
from commplan.runtime.errors import RefusedError
from commplan.runtime.servers.sglang.arguments import (
    ATTENTION_DP_CONFLICTS,
    CONFLICTS,
    check_arguments,
    check_running,
    conflicts,
)
from commplan.runtime.servers.sglang.command import needed, server_command
from commplan.runtime.servers.sglang.server_fit import check_model, check_plan, check_version
from commplan.runtime.servers.sglang.words import CAN, SEAMS

from .fakes import NONE, PLAIN, Op, Parallelism, a_range, strategy
from .plans import EVERY_PAIR, GATHER_ROWS, SCATTER, ZERO_BUFFER, groups, late

FITTING: dict[str, Any] = {
    "tp_size": 2,
    "ep_size": 1,
    "attn_dp_size": 1,
    "pp_size": 1,
    "dp_size": 1,
    "device": "cpu",
    "chunked_prefill_size": 256,
    "max_running_requests": 8,
    "moe_a2a_backend": "none",
    "flashinfer_allreduce_fusion_backend": None,
    "enable_lora": None,
}


def refusal(environment: dict[str, str] | None = None, **changes: Any) -> str:
    with pytest.raises(RefusedError) as refused:
        check_arguments(strategy(), FITTING | changes, environment or {})
    return str(refused.value)


def test_what_fits_is_accepted() -> None:
    check_arguments(strategy(), FITTING, {"SGLANG_SHARED_EXPERT_TP1": "0"})


@pytest.mark.parametrize("conflict", CONFLICTS, ids=lambda conflict: conflict.field)
def test_every_conflict_names_argument_value_reason_and_way_out(conflict: Any) -> None:
    value = {False: True, None: "x", 1: 2, "none": "deepep"}[conflict.wanted]
    text = refusal(**{conflict.field: value})
    assert text.startswith("--" + conflict.field.replace("_", "-"))
    assert conflict.reason in text
    assert conflict.way_out in text
    assert f"(got {value!r})" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tp_size": 4}, ["--tp-size", "the plan is for tp 2", "--set parallelism.tp=4"]),
        ({"ep_size": 2}, ["--ep-size", "--set parallelism.ep=2"]),
        ({"attn_dp_size": 2}, ["--attn-dp-size", "the plan is for attn_dp 1"]),
        ({"device": "cuda"}, ["--device", "over gloo"]),
        ({"chunked_prefill_size": 512}, ["ends at 256 prefill tokens", "--chunked-prefill-size 256"]),
        ({"chunked_prefill_size": -1, "context_length": 4096, "max_prefill_tokens": 64}, ["got 4096"]),
        ({"max_running_requests": 9}, ["ends at 8 decode tokens", "--max-running-requests 8"]),
        ({"enable_mixed_chunk": True}, ["no section", "modes.mixed", "leave --enable-mixed-chunk out"]),
    ],
)
def test_other_misfits(changes: dict[str, Any], words: list[str]) -> None:
    text = refusal(**changes)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("variable", ["SGLANG_SHARED_EXPERT_TP1", "SGLANG_USE_AG_AFTER_QLORA"])
def test_variables_that_move_sums(variable: str) -> None:
    assert f"{variable}: " in refusal({variable: "1"})


def captured(prefill: Any = None, decode: Any = None, backend: str = "breakable") -> dict[str, Any]:
    """The argument that says what is captured."""
    off = {"backend": "disabled"}
    phases = {
        "prefill": off if prefill is None else {"backend": backend, "bs": prefill},
        "decode": off if decode is None else {"backend": "full", "bs": decode},
    }
    return {"cuda_graph_config": phases}


def test_graphs_must_hold_the_ends_of_ranges() -> None:
    assert "--cuda-graph-bs-decode 1 2 4 8" in refusal(**captured(decode=[1, 4, 8]))
    assert "--cuda-graph-bs-prefill 4 16 20" in refusal(**captured(prefill=[4, 20]))
    check_arguments(strategy(), FITTING | captured(prefill=[4, 8, 12, 16, 20, 256], decode=[1, 2, 4, 8]), {})


def test_a_prefill_graph_beyond_the_plan_is_refused() -> None:
    assert "start with --cuda-graph-bs-prefill 16 256" in refusal(**captured(prefill=[16, 272]))


def test_prefill_graphs_of_another_kind_are_refused() -> None:
    text = refusal(**captured(prefill=[16], backend="full"))
    assert "--cuda-graph-backend-prefill" in text and "add --disable-prefill-cuda-graph" in text


def test_a_mixed_batch_may_not_replay_the_graph_of_a_prefill() -> None:
    mixed = {
        "prefill": (a_range(1, 256, PLAIN),),
        "mixed": (a_range(1, 256, PLAIN),),
        "decode": (a_range(1, 8, PLAIN),),
    }
    file, fitting = strategy(modes=mixed), FITTING | {"enable_mixed_chunk": True}
    check_arguments(file, fitting | captured(), {})
    with pytest.raises(RefusedError, match="leave --enable-mixed-chunk out"):
        check_arguments(file, fitting | captured(prefill=[16]), {})


def test_a_range_must_begin_at_one_token() -> None:
    file = strategy(modes={"prefill": (a_range(4, 256, PLAIN),), "decode": (a_range(1, 8, PLAIN),)})
    with pytest.raises(RefusedError, match="from 1 token on"):
        check_arguments(file, FITTING, {})


# ---- plan, model, version --------------------------------------------------------------------------------------------

FP8 = Op("quantized_all_reduce", algorithm="two_shot", wire_name="fp8", scale_group="token")
SHARDS = LayerOps(GATHER_ROWS, SCATTER, GATHER_ROWS, SCATTER)
ENDS_IN_SHARDS = RangePlan(1, 8, SCATTER, (SHARDS, SHARDS), GATHER_ROWS)
LATE = replace(SHARDS, attn_in=late(1), mlp_out=Op("reduce_scatter_all_gather", residual="fold"))
GATHERS_LATE = RangePlan(1, 8, SCATTER, (SHARDS, LATE), NONE)
INDEXED = ModelStamp("tiny", "target", "DeepseekV32ForCausalLM", 2, 4, 2, frozenset(), "0" * 16)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"executor": "transformers"}, "--set executor=sglang"),
        ({"parallelism": Parallelism(2, moe_backend="all_to_all")}, "--set parallelism.moe_backend=tensor_parallel"),
        (
            {"modes": {"prefill": (a_range(1, 8, FP8),)}},
            "no such impl of quantized_all_reduce there; it has .*composed",
        ),
        ({"modes": {"prefill": (ENDS_IN_SHARDS,)}}, "head_in: SGLang runs nothing but none there"),
        ({"model": INDEXED, "modes": {"prefill": (GATHERS_LATE,)}}, "layer 1 attn_in: SGLang runs all_gather there"),
        ({"modes": {"prefill": (a_range(1, 8, Op("all_reduce", impl="flashinfer_mixed")),)}}, "no such impl"),
    ],
)
def test_a_plan_that_cannot_run_as_written_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        check_plan(strategy(**changes))


def test_another_version_is_refused_with_the_tested_ones() -> None:
    check_version("0.5.23")
    with pytest.raises(RefusedError, match=r"tested with SGLang 0\.5\.23"):
        check_version("0.5.20")


def test_another_model_is_refused() -> None:
    with pytest.raises(RefusedError, match="the plan is for Qwen3ForCausalLM"):
        check_model(strategy(), {"architectures": ["MambaForCausalLM"]}, "torch.float32", "llama")


# ---- the command line ------------------------------------------------------------------------------------------------


def test_launch_adds_what_the_plan_needs_and_leaves_what_was_said() -> None:
    line = server_command(strategy(), "model", ["--dtype", "float32", "--port", "1"])
    assert line[1:4] == ["-P", "-m", "sglang.launch_server"]
    assert line.count("--dtype") == 1
    assert line[-2:] == ["--port", "1"]
    for flag, value in (("--tp-size", "2"), ("--chunked-prefill-size", "256"), ("--max-running-requests", "8")):
        assert line[line.index(flag) + 1] == value


def test_on_gpus_launch_turns_off_what_is_on_by_default_and_captures_the_ends_of_ranges() -> None:
    flags = {
        flag.name: list(flag.values) for flag in needed(strategy(hardware=HardwareStamp("h200-8", "nccl", "0" * 16)))
    }
    assert "--enforce-disable-flashinfer-allreduce-fusion" in flags
    assert "--disable-prefill-cuda-graph" not in flags
    assert flags["--cuda-graph-bs-decode"] == ["1", "2", "4", "8"]
    assert flags["--cuda-graph-bs-prefill"][:6] == ["4", "8", "12", "16", "20", "24"]
    assert flags["--cuda-graph-bs-prefill"][-1] == "256"


def on_gpus(**changes: Any) -> dict[str, list[str]]:
    file = strategy(hardware=HardwareStamp("h200-8", "nccl", "0" * 16), **changes)
    return {flag.name: list(flag.values) for flag in needed(file)}


def test_launch_names_no_prefills_to_capture_where_one_range_holds_all() -> None:
    modes = {"prefill": (a_range(1, 4096, PLAIN),), "decode": (a_range(1, 8, PLAIN),)}
    assert not {"--cuda-graph-bs-prefill", "--disable-prefill-cuda-graph"} & set(on_gpus(modes=modes))


def test_launch_captures_no_larger_prefills_of_a_model_with_mla_than_sglang_does() -> None:
    modes = {"prefill": (a_range(1, 100, PLAIN), a_range(101, 16384, PLAIN)), "decode": (a_range(1, 8, PLAIN),)}
    sizes = [int(size) for size in on_gpus(modes=modes)["--cuda-graph-bs-prefill"]]
    assert sizes[-1] == 16384 and 100 in sizes
    model = replace(strategy().model, architecture="DeepseekV3ForCausalLM")
    sizes = [int(size) for size in on_gpus(modes=modes, model=model)["--cuda-graph-bs-prefill"]]
    assert sizes[-1] == 8192 and 100 in sizes


def test_launch_captures_no_prefills_beside_mixed_batches() -> None:
    mixed = {
        "prefill": (a_range(1, 256, PLAIN),),
        "mixed": (a_range(1, 256, PLAIN),),
        "decode": (a_range(1, 8, PLAIN),),
    }
    assert "--disable-prefill-cuda-graph" in on_gpus(modes=mixed)


_SUMS = ("all_reduce", "int8_all_reduce", "reduce_scatter_all_gather")
_SUMS_AND_SHARDS = (*_SUMS[:2], "quantized_all_reduce", _SUMS[2], "reduce_scatter")
RUNS = {
    "embed_out": ("all_reduce", "reduce_scatter"),
    "attn_in": ("all_gather", "latent_all_gather"),
    "attn_out": _SUMS_AND_SHARDS,
    "mlp_in": ("all_gather",),
    "mlp_out": _SUMS_AND_SHARDS,
}
RUNS_WITH_ATTENTION_DP = {
    "embed_out": ("all_reduce",),
    "attn_in": ("all_gather",),
    "attn_out": (*_SUMS, "reduce_scatter", "all_reduce_all_gather"),
    "mlp_in": ("all_gather",),
    "mlp_out": (*_SUMS, "reduce_scatter", "reduce_scatter_all_reduce"),
    "head_in": ("all_gather",),
}


@pytest.mark.parametrize("p", [Parallelism(2), Parallelism(2, 2), Parallelism(4, 2)], ids=str)
def test_the_server_is_given_what_the_seams_of_sglang_can_run(p: Parallelism) -> None:
    runs = RUNS if p.attn_dp == 1 else RUNS_WITH_ATTENTION_DP
    for boundary in BOUNDARIES:
        assert CAN.ops_at(boundary, "prefill", p) == runs.get(boundary, ()), boundary


def test_the_file_of_the_executor_names_the_architectures_that_have_a_seam() -> None:
    assert CAN.architectures is not None
    assert set(CAN.architectures) == set(SEAMS)


# ---- attention DP ----------------------------------------------------------------------------------------------------


def grouped(tp: int = 4, prefill: int = 64, decode: int = 16, layers: Any = ZERO_BUFFER) -> StrategyFile:
    """A plan for two DP groups."""
    ranges = {"prefill": (groups(1, prefill, layers[:2]),), "decode": (groups(1, decode, layers[:2]),)}
    return strategy(parallelism=Parallelism(tp, 2), modes=ranges)


def of_groups(**changes: Any) -> str | None:
    """The first refusal of a server with two DP groups; SGLang states its prefill by group, its requests over all."""
    fits = {"tp_size": 4, "attn_dp_size": 2, "chunked_prefill_size": 32, "max_running_requests": 16}
    return next((str(error) for error in conflicts(grouped(), FITTING | fits | changes, {})), None)


def test_a_server_of_dp_groups_fits() -> None:
    check_plan(grouped())
    assert of_groups() is None


@pytest.mark.parametrize("conflict", ATTENTION_DP_CONFLICTS, ids=lambda conflict: conflict.field)
def test_every_conflict_with_dp_groups_names_reason_and_way_out(conflict: Any) -> None:
    text = of_groups(**{conflict.field: True})
    assert text is not None
    assert conflict.reason in text
    assert conflict.way_out in text
    if conflict.field != "enable_mixed_chunk":
        check_arguments(strategy(), FITTING | {conflict.field: True}, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # The largest group brings 33 rows, padded to 34, and so does the other.
        ({"chunked_prefill_size": 33}, ["ends at 64 prefill tokens", "--chunked-prefill-size 64", "got 68"]),
        ({"max_running_requests": 18}, ["ends at 16 decode tokens", "--max-running-requests 16", "got 20"]),
        ({"cuda_graph_config": {"decode": {"backend": "full", "bs": [1]}}}, ["--disable-cuda-graph"]),
        ({"attn_dp_size": 1}, ["the plan is for attn_dp 2", "--attn-dp-size 2"]),
    ],
)
def test_other_misfits_with_dp_groups(changes: dict[str, Any], words: list[str]) -> None:
    text = of_groups(**changes)
    assert text is not None
    assert all(word in text for word in words), text


def test_a_group_that_decodes_beside_one_that_prefills_counts_for_prefill() -> None:
    text = of_groups(chunked_prefill_size=2, max_running_requests=80)
    assert text is not None
    assert "got 80" in text


def test_a_scheduler_knows_its_requests_by_group() -> None:
    check_running(grouped(), 8)
    with pytest.raises(RefusedError, match="--max-running-requests 16"):
        check_running(grouped(), 9)


def test_the_last_layer_must_not_leave_a_shard_to_the_head() -> None:
    layers = (EVERY_PAIR[3], EVERY_PAIR[0])
    file = grouped(layers=layers)
    last = replace(file.modes["decode"][0], head_in=Op("all_gather", group="tp"))
    file = replace(file, modes={"decode": (last,)})
    assert list(problems(file)) == []
    with pytest.raises(RefusedError, match="must not leave a shard"):
        check_plan(file)


def test_launch_starts_dp_groups_with_whole_shards() -> None:
    flags = {flag.name: list(flag.values) for flag in needed(grouped(prefill=63, decode=18))}
    assert flags["--attn-dp-size"] == ["2"]
    assert flags["--chunked-prefill-size"] == ["60"]
    assert flags["--max-running-requests"] == ["16"]
    on_gpus = {flag.name for flag in needed(replace(grouped(), hardware=HardwareStamp("h200-8", "nccl", "0" * 16)))}
    assert "--disable-cuda-graph" in on_gpus
