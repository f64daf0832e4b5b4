"""Plans as the planner makes them for SGLang under attention DP: legal, and run by the plugin as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from commplan.planner.answers.validation import validate
from commplan.planner.strategy.file import load, problems, walk
from commplan.runtime.errors import RefusedError
from commplan.runtime.servers.sglang.server_fit import load_runnable

from ....planner.cli.commandline import run


def made(path: Path, *overrides: str) -> Path:
    """`commplan plan` for eight GPUs in four DP groups, with overrides."""
    words = ("--set=executor=sglang", *(f"--set={text}" for text in overrides))
    done = run("plan", "qwen3-235b-h200-dp4", *words, "-o", path)
    assert done.code == 0, done.err
    return path


@pytest.mark.parametrize("overrides", [(), ("parallelism.attn_dp=8",), ("numerics.loosest=quantized",)], ids=str)
def test_a_plan_made_for_sglang_runs_as_written(overrides: tuple[str, ...], tmp_path: Path) -> None:
    path = made(tmp_path / "plan.yaml", *overrides)
    assert validate(path) == []
    load_runnable(path)


def test_it_has_the_sharded_norm_and_whole_groups_at_the_head(tmp_path: Path) -> None:
    file = load(made(tmp_path / "plan.yaml"))
    assert list(problems(file)) == []
    longest = file.modes["prefill"][-1]
    assert {str(layer.attn_out) for layer in longest.layers} == {"reduce_scatter(group=attn_tp)"}
    *_, (_, _, _, before, _) = walk(file, longest)
    assert before is not None
    assert before.hidden == "dp_local"
    assert longest.layers[-1].mlp_out.name != "reduce_scatter" == longest.layers[0].mlp_out.name


def test_a_plan_of_several_stages_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "plan.yaml")
    path.write_text(path.read_text().replace("moe_backend: tensor_parallel}", "moe_backend: tensor_parallel, pp: 2}"))
    with pytest.raises(RefusedError, match=r"--set parallelism\.pp=1") as raised:
        load_runnable(path)
    assert (raised.value.field, raised.value.value) == ("parallelism.pp", 2)
