"""The files that are spoiled: for every kind some that are right, made once per process, copied for every case."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.backtest.case import shipped_cases
from commplan.planner.descriptions.loader import find, load_setup, preset_names
from commplan.planner.strategy.file import save
from tests.planner.tiny_setups import Machine, dense_model, latent_model, own_tables, table

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CONFIGS = ROOT / "tests" / "planner" / "descriptions" / "hf_configs"
_MODES = {"prefill": {"tokens": [1, 300], "sequence_tokens": 64}, "decode": {"tokens": [1, 40], "context_tokens": 128}}
_SHIPPED = 0.3  # the part of the cases that start from files that ship


@dataclass
class Corpus:
    """Folders of files that belong together: deployment.yaml names its neighbours, and strategy.yaml is its plan."""

    folder: Path
    _made: dict[str, Path] = field(default_factory=dict)

    def copy(self, kind: str, rng: random.Random, target: Path) -> None:
        """Write files of which the one of this kind will be spoiled."""
        names = ["dense", "latent"]
        if kind in ("config.json", "checkpoint"):
            names = list(_CHECKPOINTS)
        elif kind != "sensitivity" and rng.random() < _SHIPPED:
            names = list(preset_names("deployments"))
        name = rng.choice(names)
        if name not in self._made:
            self._made[name] = self._make(name)
        shutil.copytree(self._made[name], target)
        if kind == "back-test case" and rng.random() < _SHIPPED:
            shutil.copyfile(rng.choice(shipped_cases()), target / "case.yaml")
        if kind == "config.json" and rng.random() < 0.5:
            shutil.copyfile(rng.choice(sorted(CONFIGS.iterdir())), target / "checkpoint" / "config.json")

    def _make(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True)
        if name in _CHECKPOINTS:
            _checkpoint(folder, name)
        elif name in ("dense", "latent"):
            _tiny(folder, latent=name == "latent")
        else:
            _shipped(folder, name)
        return folder


def _tiny(folder: Path, latent: bool) -> None:
    if latent:
        model, machine = latent_model(3), Machine(num_nodes=2, devices_per_node=2)
        parallelism = {"tp": 4, "attn_dp": 2}
    else:
        model, parallelism = dense_model(3), {"tp": 2}
        tables = [table(op, 2, {4**k * 64: 5 + 4**k / 99 for k in range(8)}) for op in _COLLECTIVES]
        machine = Machine(tables=(*tables, *own_tables((2,))))
    _write(folder / "model.yaml", model)
    _write(folder / "hardware.yaml", machine.mapping(Path("calibration.yaml")))
    _write(folder / "calibration.yaml", (machine if machine.tables else _ONE_TABLE).calibration())
    _write(folder / "sensitivity.yaml", _SENSITIVITY)
    _write(
        folder / "deployment.yaml",
        {
            "schema": "commplan/deployment/v1",
            "name": "tiny",
            "model": "model.yaml",
            "hardware": "hardware.yaml",
            "executor": "transformers",
            "parallelism": parallelism,
            "dtypes": {"weights": "bf16", "activations": "bf16", "kv_cache": "bf16"},
            "modes": _MODES,
            "numerics": {"loosest": "quantized", "error_budget": 0.02, "sensitivity": "sensitivity.yaml"},
        },
    )
    _write(folder / "case.yaml", _CASE)
    save(
        plan_setup(load_setup(str(folder / "deployment.yaml"), ("search.range_tolerance=0.005",))),
        folder / "strategy.yaml",
    )
    shutil.copyfile(folder / "strategy.yaml", folder / "other.yaml")


_ONE_TABLE = Machine(tables=(table("all_reduce", 2, {64: 5.0, 4096: 9.0}),))
_COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
_SENSITIVITY = {"schema": "commplan/sensitivity/v1", "attn_out": [1.0, 0.5, 2.0], "mlp_out": [1.0, 1.0, 0.25]}
_CASE: dict[str, Any] = {
    "schema": "commplan/backtest/v1",
    "id": "tiny-case",
    "source": "invented for a test",
    "deployment": "deployment.yaml",
    "set": {"parallelism.tp": 2, "parallelism.attn_dp": 1},
    "mode": "prefill",
    "tokens": [16, 64],
    "quantity": "collective_time",
    "of": {"ops": {"attn_out": "all_reduce", "mlp_out": "reduce_scatter", "attn_in": "all_gather"}},
    "to": {"strategy": "all_reduce"},
    "published": 0.9,
    "low": 0.5,
    "high": 0.95,
}


def _shipped(folder: Path, name: str) -> None:
    """A deployment that ships, naming copies of its files beside it."""
    text = find(name, "deployments", None, "deployment").read_text()
    model, hardware = (re.search(rf"^{key}: (\S+)", text, re.M)[1] for key in ("model", "hardware"))  # type: ignore[index]
    text = re.sub(r"^(model|hardware): (\S+)", r"\1: \1.yaml", text, flags=re.M)
    (folder / "deployment.yaml").write_text(text)
    shutil.copyfile(find(model, "models", None, "model"), folder / "model.yaml")
    machine = find(hardware, "hardware", None, "hardware").read_text()
    tables = re.search(r"\{file: ([\w-]+)", machine)
    if tables:
        shutil.copyfile(find(tables[1], "calibrations", None, "file"), folder / "calibration.yaml")
        machine = machine.replace(tables[0], "{file: calibration.yaml", 1)
    else:
        _write(folder / "calibration.yaml", _ONE_TABLE.calibration())
        machine += "calibrations:\n- {file: calibration.yaml}\n"
    (folder / "hardware.yaml").write_text(machine)
    shutil.copyfile(GOLDEN / f"{name}.yaml", folder / "strategy.yaml")
    shutil.copyfile(GOLDEN / f"{name}.yaml", folder / "other.yaml")
    mode = next(iter(load_setup(name).deployment.modes))
    _write(folder / "case.yaml", _CASE | {"set": {}, "mode": mode, "of": "optimum"})


_CHECKPOINTS: dict[str, dict[str, Any]] = {
    "qwen3": {"num_hidden_layers": 1, "layer_types": ["full_attention"]},
    "deepseek_v3": {"num_hidden_layers": 1, "first_k_dense_replace": 0},
}


def _checkpoint(folder: Path, family: str) -> None:
    """A checkpoint of one layer, with a plan for one rank of a CPU."""
    from tests.runtime.transformers.tiny_models import write_checkpoint

    write_checkpoint(family, folder / "checkpoint", **_CHECKPOINTS[family])
    deployment = {
        "schema": "commplan/deployment/v1",
        "name": "tiny",
        "model": "checkpoint/config.json",
        "hardware": "cpu-gloo",
        "executor": "transformers",
        "parallelism": {"tp": 1},
        "dtypes": {"weights": "fp32", "activations": "fp32", "kv_cache": "fp32"},
        "modes": {
            "prefill": {"tokens": [1, 8], "sequence_tokens": 4},
            "decode": {"tokens": [1, 4], "context_tokens": 8},
        },
    }
    _write(folder / "deployment.yaml", deployment)
    save(plan_setup(load_setup(str(folder / "deployment.yaml"))), folder / "strategy.yaml")


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
