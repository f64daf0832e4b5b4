"""Hardware and calibration files: what makes them unusable is refused by field, and every preset is usable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.calibration import Calibration
from commplan.planner.descriptions.deployment import Deployment
from commplan.planner.descriptions.hardware import Hardware
from commplan.planner.descriptions.loader import find, load_model, load_setup, preset_names
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.yaml_file import read_mapping

Mapping = dict[str, Any]
SPECS = {"hardware": Hardware, "calibrations": Calibration, "deployments": Deployment}
PRESETS = [(folder, name) for folder in SPECS for name in preset_names(folder)]


def preset(folder: str, name: str) -> Mapping:
    return read_mapping(find(name, folder, None, folder))


@pytest.mark.parametrize(("folder", "name"), PRESETS)
def test_a_preset_is_read_and_named_like_its_file(folder: str, name: str) -> None:
    spec = build(SPECS[folder], preset(folder, name), name)
    assert getattr(spec, "name") == name  # noqa: B009


@pytest.mark.parametrize("name", preset_names("models"))
def test_a_model_preset_is_read_and_cites_its_source(name: str) -> None:
    assert load_model(name).source


@pytest.mark.parametrize("name", preset_names("deployments"))
def test_a_deployment_preset_and_all_it_names_fit_together(name: str) -> None:
    assert load_setup(name).deployment.description


def set_in(data: Mapping, field: str, value: object) -> None:
    *path, last = field.split(".")
    for key in path:
        data = data[int(key) if key.isdigit() else key]
    data[int(last) if isinstance(data, list) else last] = value


def refusal(spec: Any, data: Mapping) -> InputError:
    with pytest.raises(InputError) as caught:
        build(spec, data, "spoiled.yaml")
    assert caught.value.file == "spoiled.yaml"
    return caught.value


@pytest.mark.parametrize(
    ("field", "value", "named", "accepted"),
    [
        ("vendor", "acme", "vendor", "'nvidia'"),
        ("backend", "mscclpp", "backend", "'nccl'"),
        ("devices_per_node", 0, "devices_per_node", "greater than 0"),
        ("devices_per_node", 8.0, "devices_per_node", "a whole number"),
        ("num_nodes", 2, "links.inter_node", "num_nodes is 2"),
        ("links.intra_node.topology", "torus", "links.intra_node.topology", "'full_mesh'"),
        ("links.intra_node.bandwidth_gb_per_s", 450, "links.intra_node.bandwidth_gb_per_s", "a mapping"),
        ("links.intra_node.bandwidth_gb_per_s.value", "450 GB/s", "links.intra_node.bandwidth_gb_per_s.value", "unit"),
        (
            "links.intra_node.bandwidth_gb_per_s.provenance",
            "guessed",
            "links.intra_node.bandwidth_gb_per_s.provenance",
            "'assumed'",
        ),
        ("links.intra_node.bandwidth_gb_per_s.source", "", "links.intra_node.bandwidth_gb_per_s.source", "text"),
        ("memory.bandwidth_efficiency.value", 80, "memory.bandwidth_efficiency.value", "less than or equal to 1"),
        ("compute.gemm_efficiency.value", 1.2, "compute.gemm_efficiency.value", "less than or equal to 1"),
        ("compute.bf16_tflops.value", float("nan"), "compute.bf16_tflops.value", "finite"),
        ("compute.bf16_tflops.value", True, "compute.bf16_tflops.value", "a number"),
        ("calibrations", "h200-sxm", "calibrations", "a list"),
        ("calibrations", [{"transferred_because": "x"}], "calibrations[0].file", "missing"),
    ],
)
def test_a_spoiled_hardware_file(field: str, value: object, named: str, accepted: str) -> None:
    data = preset("hardware", "h200-8")
    set_in(data, field, value)
    error = refusal(Hardware, data)
    assert error.field == named
    assert accepted in error.message


@pytest.mark.parametrize("field", ["compute.bf16_tflops", "memory.capacity_gb", "links.intra_node.latency_us", "links"])
def test_a_missing_figure_is_an_error_and_no_default(field: str) -> None:
    data = preset("hardware", "h200-8")
    *path, last = field.split(".")
    inner = data
    for key in path:
        inner = inner[key]
    del inner[last]
    error = refusal(Hardware, data)
    assert (error.kind, error.field) == ("missing_key", field)


def test_a_library_of_another_vendor_is_refused() -> None:
    with pytest.raises(InputError, match="cannot use rccl on nvidia"):
        load_setup("qwen3-32b-h200-tp2", ("hardware.backend=rccl",))


def shorten(data: Mapping) -> None:
    data["tables"][0]["latency_us"] = data["tables"][0]["latency_us"][:-1]


def repeat(data: Mapping) -> None:
    data["tables"].append(data["tables"][0])


def leave_out_an_op(data: Mapping) -> None:
    data["tables"] = [t for t in data["tables"] if t["op"] != "reduce_scatter"]


@pytest.mark.parametrize(
    ("spoil", "field", "message"),
    [
        (shorten, "tables[0].latency_us", "sizes"),
        (repeat, "tables", "two tables for"),
        (leave_out_an_op, "tables", "no table for reduce_scatter"),
        (lambda d: d.update(tables=[]), "tables", "list should have at least 1 item, not 0"),
        (lambda d: set_in(d, "tables.0.latency_us.0", float("nan")), "tables[0].latency_us[0]", "finite"),
        (lambda d: set_in(d, "tables.0.latency_us.0", 0), "tables[0].latency_us[0]", "greater than 0"),
        (lambda d: set_in(d, "tables.0.latency_us.0", -1.0), "tables[0].latency_us[0]", "greater than 0"),
        (lambda d: set_in(d, "tables.0.message_bytes.0", 0), "tables[0].message_bytes[0]", "greater than 0"),
        (lambda d: set_in(d, "tables.0.message_bytes.0", 1.5), "tables[0].message_bytes[0]", "a whole number"),
        (lambda d: set_in(d, "tables.0.group_size", 1), "tables[0].group_size", "equal to 2"),
        (lambda d: set_in(d, "tables.0.dtype", "fp64"), "tables[0].dtype", "'bf16'"),
        (lambda d: set_in(d, "tables.0.op", "broadcast"), "tables[0].op", "'all_gather'"),
    ],
)
def test_a_spoiled_calibration_file(spoil: Callable[[Mapping], None], field: str, message: str) -> None:
    data = yaml.safe_load(yaml.safe_dump(preset("calibrations", "cpu-gloo")))
    spoil(data)
    error = refusal(Calibration, data)
    assert error.field == field
    assert message in error.message


def test_files_are_looked_up_beside_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in the working directory after that."""
    (tmp_path / "deployments").mkdir()
    (tmp_path / "elsewhere").mkdir()
    model = preset("models", "qwen3-0.6b") | {"name": "beside"}
    (tmp_path / "deployments" / "m.yaml").write_text(yaml.safe_dump(model))
    data = preset("deployments", "qwen3-0.6b-cpu-tp2") | {"model": "m.yaml"}
    (tmp_path / "deployments" / "d.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "m.yaml").write_text(yaml.safe_dump(model | {"name": "here"}))
    assert load_setup("../deployments/d.yaml").model.name == "beside"
    (tmp_path / "deployments" / "m.yaml").unlink()
    assert load_setup("../deployments/d.yaml").model.name == "here"
