"""Server arguments against a plan, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.strategy_file import HardwareStamp
from commplan.runtime.errors import RefusedError
from commplan.runtime.sglang.arguments import CONFLICTS, check_arguments
from commplan.runtime.sglang.command import needed, server_command
from commplan.runtime.sglang.fit import check_model, check_plan, check_version

from .fakes import PLAIN, Op, Parallelism, a_range, strategy

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


def test_prefill_graphs_are_refused_and_decode_graphs_must_hold_the_ends_of_ranges() -> None:
    graphs = {"prefill": {"backend": "breakable"}, "decode": {"backend": "disabled"}}
    assert "--disable-prefill-cuda-graph" in refusal(cuda_graph_config=graphs)
    graphs = {"prefill": {"backend": "disabled"}, "decode": {"backend": "full", "bs": [1, 4, 8]}}
    assert "--cuda-graph-bs-decode 1 2 4 8" in refusal(cuda_graph_config=graphs)


def test_a_range_must_begin_at_one_token() -> None:
    file = strategy(modes={"prefill": (a_range(4, 256, PLAIN),), "decode": (a_range(1, 8, PLAIN),)})
    with pytest.raises(RefusedError, match="from 1 token on"):
        check_arguments(file, FITTING, {})


# ---- plan, model, version --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"executor": "transformers"}, "--set executor=sglang"),
        ({"parallelism": Parallelism(2, 2)}, "under attention DP"),
        ({"modes": {"prefill": (a_range(1, 8, Op("reduce_scatter")),)}}, "layer 0 attn_out: SGLang runs all_reduce"),
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
        check_model(strategy(), {"architectures": ["LlamaForCausalLM"]}, "torch.float32", "llama")


# ---- the command line ------------------------------------------------------------------------------------------------


def test_launch_adds_what_the_plan_needs_and_leaves_what_was_said() -> None:
    line = server_command(strategy(), "model", ["--dtype", "float32", "--port", "1"])
    assert line[1:4] == ["-P", "-m", "sglang.launch_server"]
    assert line.count("--dtype") == 1
    assert line[-2:] == ["--port", "1"]
    for flag, value in (("--tp-size", "2"), ("--chunked-prefill-size", "256"), ("--max-running-requests", "8")):
        assert line[line.index(flag) + 1] == value


def test_on_gpus_launch_turns_off_what_is_on_by_default_and_captures_the_ends_of_ranges() -> None:
    flags = {flag: values for flag, *values in needed(strategy(hardware=HardwareStamp("h200-8", "nccl", "0" * 16)))}
    assert "--enforce-disable-flashinfer-allreduce-fusion" in flags
    assert "--disable-prefill-cuda-graph" in flags
    assert flags["--cuda-graph-bs-decode"] == ["1", "2", "4", "8"]


def test_the_planner_is_told_what_the_runtime_runs() -> None:
    """planner/executors/sglang.yaml and fit.RUNS say the same: else a plan would be made and then refused."""
    from commplan.planner.executors import load_executor
    from commplan.runtime.sglang.fit import RUNS
    from commplan.runtime.sglang.words import SEAMS

    executor = load_executor("sglang")
    assert executor.architectures is not None
    assert set(executor.architectures) == set(SEAMS)
    for boundary, names in RUNS.items():
        at = {name for name in executor.ops if boundary in Op(name).kind.boundaries}
        assert at == set(names)
