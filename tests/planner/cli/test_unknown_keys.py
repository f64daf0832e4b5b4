"""An unknown key is refused at every level of every file, with the nearest key that would be accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .commandline import refused
from .deployments import deployment

CONFIGS = Path(__file__).parents[3] / "configs"

IN_A_DEPLOYMENT = [
    ("name: small", "nmae: small", "nmae", "'name'"),
    ("{tp: 2,", "{tp: 2, attndp: 2,", "parallelism.attndp", "'attn_dp'"),
    ("{weights:", "{weight:", "dtypes.weight", "'weights'"),
    ("sequence_tokens: 32", "sequence_token: 32", "modes.prefill.sequence_token", "'sequence_tokens'"),
    ("context_tokens: 128", "contex_tokens: 128", "modes.decode.contex_tokens", "'context_tokens'"),
    ("error_budget:", "error_buget:", "numerics.error_buget", "'error_budget'"),
    ("pin: []", "pin: [{op: none, boundry: mlp_in}]", "numerics.pin[0].boundry", "'boundary'"),
    ("forbid: []", "forbid: [{op: none}, {opp: slice}]", "numerics.forbid[1].opp", "'op'"),
    ("activation_memory_gb", "activation_memory", "limits.activation_memory", "'activation_memory_gb'"),
    ("range_tolerance:", "range_tolerence:", "search.range_tolerence", "'range_tolerance'"),
    ("schema:", "shema:", "shema", "'schema'"),
]


@pytest.mark.parametrize(("old", "new", "field", "hint"), IN_A_DEPLOYMENT)
def test_of_a_deployment(old: str, new: str, field: str, hint: str, tmp_path: Path) -> None:
    path = deployment(tmp_path, (old, new))
    error = refused("plan", path)
    assert (error["kind"], error["file"], error["field"]) == ("unknown_key", str(path), field)
    assert f"did you mean {hint}?" in error["message"]


def test_a_key_like_no_other_is_answered_with_all_accepted_ones(tmp_path: Path) -> None:
    error = refused("plan", deployment(tmp_path, ("limits:", "zzz: 1\nlimits:")))
    for key in ("parallelism", "modes", "numerics", "schema"):
        assert key in error["message"]


IN_A_HARDWARE = [
    (("descripton",), "descripton", "'description'"),
    (("compute", "bf16_flops"), "compute.bf16_flops", "'bf16_tflops'"),
    (("memory", "capacity"), "memory.capacity", "'capacity_gb'"),
    (("links", "intranode"), "links.intranode", "'intra_node'"),
    (("links", "intra_node", "latency"), "links.intra_node.latency", "'latency_us'"),
    (("links", "intra_node", "latency_us", "unit"), "links.intra_node.latency_us.unit", "accepted"),
]


@pytest.mark.parametrize(("keys", "field", "hint"), IN_A_HARDWARE)
def test_of_a_hardware_file(keys: tuple[str, ...], field: str, hint: str, tmp_path: Path) -> None:
    data = yaml.safe_load((CONFIGS / "hardware" / "cpu-gloo.yaml").read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = 1
    (tmp_path / "machine.yaml").write_text(yaml.safe_dump(data))
    error = refused("plan", deployment(tmp_path, ("hardware: cpu-gloo", "hardware: machine.yaml")))
    assert (error["kind"], error["field"]) == ("unknown_key", field)
    assert error["file"] == str(tmp_path / "machine.yaml")
    assert hint in error["message"]


def test_of_a_model_file(tmp_path: Path) -> None:
    text = (CONFIGS / "models" / "qwen3-0.6b.yaml").read_text() + "hiden_size: 3\n"
    (tmp_path / "model.yaml").write_text(text)
    error = refused("plan", deployment(tmp_path, ("model: qwen3-0.6b", "model: model.yaml")))
    assert (error["kind"], error["file"]) == ("unknown_key", str(tmp_path / "model.yaml"))
    assert (error["field"], "'hidden_size'" in error["message"]) == ("hiden_size", True)


def test_of_a_calibration_file(tmp_path: Path) -> None:
    calibration = yaml.safe_load((CONFIGS / "calibrations" / "cpu-gloo.yaml").read_text())
    calibration["tables"][1]["latency"] = [1.0]
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(calibration))
    machine = yaml.safe_load((CONFIGS / "hardware" / "cpu-gloo.yaml").read_text())
    machine["calibrations"] = [{"file": "table.yaml"}]
    (tmp_path / "machine.yaml").write_text(yaml.safe_dump(machine))
    error = refused("plan", deployment(tmp_path, ("hardware: cpu-gloo", "hardware: machine.yaml")))
    assert (error["kind"], error["field"]) == ("unknown_key", "tables[1].latency")
    assert (error["file"], "'latency_us'" in error["message"]) == (str(tmp_path / "table.yaml"), True)
