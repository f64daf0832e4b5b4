"""Whoever adds the files that CONTRIBUTING names for a kind of thing, and no others, has the thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .examples import (
    ALL,
    ARCHITECTURE,
    BACKEND,
    CONFIG,
    EXECUTOR,
    HARDWARE,
    MODEL_OF_A_KNOWN_FAMILY,
    OP,
    STRATEGY,
    VENDOR,
)
from .trial import PACKAGES, ROOT, Done, Trial, add_to_a_copy, changed_files, commands, python
from .wire_format import WIRE_FORMAT

pytestmark = pytest.mark.slow

TINY, LARGE = "qwen3-0.6b-cpu-tp2", ("qwen3-32b-h200-tp2", "--set", "parallelism.tp=8")
_ON_ONE_RANK = """
import torch, torch.distributed as dist
from commplan.runtime.backends import load_backend
from commplan.runtime.backends.xccl import XcclBackend
from commplan.runtime.errors import RefusedError
from commplan.runtime.ranks.groups import Group
assert XcclBackend.torch_name.fget(object.__new__(XcclBackend)) == "nccl"
try:
    print(load_backend("xccl").torch_name)
except RefusedError as error:
    print(error)
counting = load_backend("counting")
dist.init_process_group(counting.torch_name, store=dist.HashStore(), rank=0, world_size=1)
x = counting.all_reduce(torch.ones(2, 3, device=counting.device(0)), Group("tp", dist.group.WORLD, 1, 0))
print(counting.sums, x.sum().item())
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_to_a_copy(tmp_path_factory.mktemp("package"), *ALL)


@pytest.fixture(scope="module")
def done(package: Path) -> dict[str, Done]:
    """All commands that the claims below look at, run in one process: starting one takes longest."""
    config, pond, pool = package / "config.json", package / "pond.yaml", package / "pool.yaml"
    config.write_text(json.dumps(CONFIG))
    machine = (ROOT / "configs/hardware/cpu-gloo.yaml").read_text().replace("name: cpu-gloo", "name: pool")
    pool.write_text(machine.partition("\ncalibrations:")[0].replace("backend: gloo", "backend: counting") + "\n")
    lake, otter, served = (package / f"{name}.yaml" for name in ("lake", "otter", "served"))
    given = {
        "strategies": ("presets", "strategies", "--json"),
        "uniform": ("what-if", TINY, "--vary", "tokens=512", "--json"),
        "ripple": ("explain", TINY, "--boundary", "mlp_out", "--json"),
        "import": ("import-model", config, "--name", "Otter", "--json"),
        "otter": ("plan", TINY, "--set", "model=otter", "-o", otter, "--json"),
        "pond": ("plan", *LARGE, "--set", "hardware=pond-8", "-o", pond, "--json"),
        "lake": ("plan", *LARGE, "--set", "hardware=lake-8", "-o", lake, "--json"),
        "lake under sglang": ("plan", *LARGE, "--set", "hardware=lake-8", "--set", "executor=sglang", "--json"),
        "gloo": ("plan", TINY, "--json"),
        "counting": ("plan", TINY, "--set", f"hardware={pool}", "-o", package / "counting.yaml", "--json"),
        "served": ("plan", TINY, "--set", "executor=otterserve", "-o", served, "--json"),
        "legal": ("validate", lake, otter, served, package / "counting.yaml"),
        "explained": ("explain", TINY, "--set", "executor=otterserve", "--boundary", "mlp_out", "--json"),
        "run": ("check", served, "--model", package, "--json"),
    }
    return dict(zip(given, commands(package, *given.values()), strict=True))


def answer(done: Done) -> Any:
    assert done.code == 0, done
    return json.loads(done.out)


def refusal(done: Done) -> Any:
    assert done.code == 2, done
    return json.loads(done.out)["error"]


@pytest.mark.parametrize("trial", [*ALL, MODEL_OF_A_KNOWN_FAMILY, WIRE_FORMAT], ids=lambda trial: trial.kind)
def test_an_example_is_made_of_the_files_that_contributing_names_in_its_order(trial: Trial) -> None:
    assert list(trial.parts) == trial.told()


def test_the_examples_change_no_other_file(package: Path) -> None:
    parts = {path for trial in ALL for path in trial.parts if path.startswith(PACKAGES)}
    assert set(changed_files(package)) == parts


def test_a_strategy_is_listed_and_compared_with_the_others(done: dict[str, Done]) -> None:
    assert "two_step" in {entry["name"] for entry in answer(done["strategies"])["strategies"]}
    (point,) = answer(done["uniform"])["points"]
    assert "two_step" in {plan["name"] for plan in point["plans"]}
    assert set(STRATEGY.parts) == {"planner/strategies/two_step.py"}


def test_an_op_is_priced_and_its_error_counts(done: dict[str, Done]) -> None:
    options = answer(done["ripple"])["alternatives"]
    ripple, int8 = (
        next(o for o in options if o["ops"] == {"mlp_out": {name: {"algorithm": "gather"}}})
        for name in ("ripple", "int8_all_reduce")
    )
    assert ripple["reason"].startswith("is quantized, and numerics.loosest is reordered")
    assert ripple["breakdown"] == int8["breakdown"]
    assert len(OP.parts) == 3


def test_a_model_of_a_new_family_is_imported_and_planned(done: dict[str, Done]) -> None:
    assert answer(done["import"])["model"]["architecture"] == "OtterForCausalLM"
    assert answer(done["otter"])["modes"]


def test_a_new_family_that_the_executor_lists_has_its_adapter(package: Path) -> None:
    code = (
        "from commplan.runtime.transformers.models import adapters; from commplan.planner.strategy.file import "
        "capabilities; assert set(adapters()) == set(capabilities('transformers').architectures) != set(); "
        f"assert {CONFIG['architectures'][0]!r} in adapters()"
    )
    assert python(package, "-c", code).stderr == ""
    assert len(ARCHITECTURE.parts) == 6


def test_a_machine_is_planned_for(done: dict[str, Done]) -> None:
    assert {r["source"] for r in answer(done["pond"])["modes"]["prefill"]} == {"assumed"}
    assert len(HARDWARE.parts) == 1


def test_a_machine_of_a_new_vendor_is_planned_for_and_only_where_its_library_runs(done: dict[str, Done]) -> None:
    assert answer(done["lake"])["modes"]
    assert "sglang cannot use xccl on intel" in refusal(done["lake under sglang"])["message"]
    assert len(VENDOR.parts) == 4


def test_a_new_backend_carries_plans_of_its_machines_and_of_no_other(done: dict[str, Done], package: Path) -> None:
    assert answer(done["counting"])["modes"]
    assert "backend: counting" in (package / "counting.yaml").read_text()
    assert {r["source"] for mode in answer(done["gloo"])["modes"].values() for r in mode} == {"measured"}


@pytest.mark.slow
def test_new_backends_run_under_the_names_that_torch_has_for_them(package: Path) -> None:
    ran = python(package, "-c", _ON_ONE_RANK)
    assert ran.returncode == 0, ran.stderr
    intel, cpu = ran.stdout.splitlines()
    assert "cannot be used here" in intel or intel == "nccl"
    assert cpu == "1 6.0"
    assert len(BACKEND.parts) == 3


def test_what_an_executor_refuses_is_said_in_the_words_of_its_file(done: dict[str, Done]) -> None:
    assert answer(done["served"])["modes"]
    told = {json.dumps(a["ops"]): a["reason"] for a in answer(done["explained"])["alternatives"]}
    assert any("executor otterserve: its MLP sums by itself" in reason for reason in told.values())
    why = told[json.dumps({"mlp_out": "reduce_scatter"})]
    assert why == "executor otterserve cannot run reduce_scatter: its norms take whole rows"
    assert len(EXECUTOR.parts) == 1


def test_our_runtime_refuses_a_plan_of_another_executor_and_says_whose_plans_it_runs(done: dict[str, Done]) -> None:
    error = refusal(done["run"])
    assert (error["field"], error["value"]) == ("executor", "otterserve")
    assert "this runtime executes plans made for executor transformers" in error["message"]


def test_every_plan_of_theirs_is_proved_legal(done: dict[str, Done]) -> None:
    assert (done["legal"].code, done["legal"].out.count(": legal")) == (0, 4)
