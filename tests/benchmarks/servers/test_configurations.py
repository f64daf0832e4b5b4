"""How servers are started: with what `commplan launch` computes, and alike in all that a plan does not change."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from commplan.planner.strategy.executor_file import capabilities
from commplan.planner.strategy.file import StrategyFile, places
from commplan.runtime.servers.sglang.command import added_flags, server_command
from commplan.runtime.servers.sglang.line import check_line, typed


def plan(bench, folder: Path, name: str, shape: str = "qwen3-32b", slow: bool = False) -> StrategyFile:
    about = bench.shapes.SHAPES[shape]
    model = bench.shapes.write_model(shape, 5, folder)
    sets = bench.configurations.overrides(name, model, about.overrides, slow, [])
    found: StrategyFile = bench.configurations.make_plan(about.deployment, sets, folder / f"{name}.yaml")
    return found


@pytest.fixture
def quantised(bench, tmp_path: Path) -> StrategyFile:
    return plan(bench, tmp_path, "quantised")


def impls(file: StrategyFile) -> set[str | None]:
    return {op.impl for of in file.modes.values() for ranges in of for *_, op in places(ranges) if op.kind.runs}


def test_a_server_under_a_plan_is_started_as_launch_does(bench, quantised: StrategyFile) -> None:
    common = ["--load-format", "dummy"]
    found = bench.configurations.command_of("quantised", "model", quantised, quantised, common)
    assert found == server_command(quantised, "model", common)


def test_an_unmodified_server_differs_in_what_the_plan_changes_and_in_nothing_else(bench, quantised) -> None:
    common = ["--load-format", "dummy", "--cuda-graph-bs-decode", "1", "2"]
    planned = typed(bench.configurations.command_of("quantised", "model", quantised, quantised, common)[4:])
    unmodified = typed(bench.configurations.command_of("unmodified", "model", None, quantised, common)[4:])
    assert unmodified.items() <= planned.items()
    changed = {"--" + name.replace("_", "-") for name in set(planned) - set(unmodified)}
    assert changed <= {flag.name for flag in added_flags(quantised, common)}
    assert {"tp_size", "dtype", "chunked_prefill_size", "max_running_requests"} <= set(unmodified)


@pytest.mark.parametrize("name", ["quantised", "reordered", "server_kernels"])
def test_the_plugin_takes_the_arguments_of_the_benchmark(bench, tmp_path: Path, name: str) -> None:
    file = plan(bench, tmp_path, name)
    sizes = bench.configurations.decode_sizes((1, 16, 64), [file])
    assert {ranges.last for ranges in file.modes["decode"] if ranges.last < sizes[-1]} <= set(sizes)
    prompts = bench.configurations.prefill_sizes((1024, 4096), [file])
    assert {1024, 4096} | {ranges.last for ranges in file.modes["prefill"]} == set(prompts)
    common = [*bench.script.GPU_ARGUMENTS.split(), "--cuda-graph-bs-decode", *map(str, sizes)]
    common += ["--cuda-graph-bs-prefill", *map(str, prompts)]
    check_line(file, bench.configurations.command_of(name, "model", file, file, common)[4:], {})


def test_flags_of_a_configuration_reach_its_server(bench, quantised: StrategyFile) -> None:
    found = bench.configurations.command_of("layernorm_sp", "model", None, quantised, [])
    assert "--enable-layernorm-sp" in found


def test_a_plan_on_the_servers_own_kernels_has_none_of_ours(bench, tmp_path: Path) -> None:
    assert impls(plan(bench, tmp_path, "server_kernels")) <= {None, "custom_one_shot"}


def test_over_slow_links_no_kernel_reads_a_peers_memory(bench, tmp_path: Path) -> None:
    known = capabilities("sglang").impls
    for name in ("quantised", "reordered"):
        found = impls(plan(bench, tmp_path, name, slow=True))
        assert not any(known[impl].peer_access for impl in found if impl is not None)


def test_over_slow_links_plans_are_priced_for_them_where_such_a_machine_is_shipped(bench, tmp_path: Path) -> None:
    name = bench.configurations.SLOW_HARDWARE
    shipped = (files("commplan.configs") / "hardware" / f"{name}.yaml").is_file()
    file = plan(bench, tmp_path, "reordered", slow=True)
    assert file.hardware.name == (name if shipped else "h200-2")


@pytest.mark.parametrize("shape", ["qwen3-32b", "qwen3-235b", "deepseek-v3"])
def test_every_shape_has_its_plan(bench, tmp_path: Path, shape: str) -> None:
    file = plan(bench, tmp_path, "quantised", shape)
    assert (file.model.num_hidden_layers, file.parallelism.tp) == (5, 2)
    assert file.model.architecture == bench.shapes.SHAPES[shape].config["architectures"][0]


class Tensor:
    """As much of a tensor as the plugin looks at."""

    def __init__(self, dimensions: int, floating: bool) -> None:
        self.dim, self.is_floating_point = (lambda: dimensions), (lambda: floating)


def test_what_is_left_out_are_sums_of_activations_alone(bench) -> None:
    left_out, rows, counts = bench.sums_left_out.left_out, Tensor(2, True), Tensor(1, False)
    assert left_out(lambda group, x: "summed", None, rows) is rows
    assert left_out(lambda group, x: "summed", None, counts) == "summed"


def test_graphs_and_fusion_are_read_off_what_the_server_says(bench) -> None:
    graphs = {"prefill": {"backend": "breakable", "bs": [4, 4096]}, "decode": {"backend": "disabled", "bs": [1]}}
    told = bench.telling.told_in(
        {"cuda_graph_config": graphs, "flashinfer_allreduce_fusion_backend": "auto", "enable_layernorm_sp": False}
    )
    assert told == {
        "flashinfer_allreduce_fusion_backend": "auto",
        "prefill graphs": "breakable, 2 up to 4096",
        "decode graphs": "none",
    }


def test_rows_keep_arguments_and_no_places_of_a_machine(bench) -> None:
    command = ["/a/python", "-P", "-m", "sglang.launch_server", "--model-path", "/b", "--tp-size", "2", "--port", "1"]
    assert bench.telling.arguments_of(command) == "--tp-size 2"
