"""JSON Schemas for editors take every file that ships, know every key, and refuse what a reader refuses."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.yaml_file import read_mapping

from .commandline import answer, run
from .deployments import TEXT
from .json_schemas import faults

ROOT = Path(__file__).parents[3]
FOLDERS = {
    "deployment": ROOT / "configs" / "deployments",
    "hardware": ROOT / "configs" / "hardware",
    "model": ROOT / "configs" / "models",
    "calibration": ROOT / "configs" / "calibrations",
    "backtest": ROOT / "configs" / "backtests",
    "strategy": ROOT / "tests" / "golden",
}
KINDS_OF_FILES = [*FOLDERS, "sensitivity"]
SHIPPED = [
    pytest.param(kind, path, id=f"{kind} {path.stem}")
    for kind in FOLDERS
    for path in sorted(FOLDERS[kind].glob("*.yaml"))
]


@cache
def schema(kind: str) -> dict[str, Any]:
    return json.loads(run("schema", kind).out)


def against(kind: str, value: Any) -> list[str]:
    return faults(value, schema(kind), schema(kind))


@pytest.mark.parametrize(("kind", "path"), SHIPPED)
def test_every_file_that_ships_is_one_that_its_schema_takes(kind: str, path: Path) -> None:
    assert against(kind, read_mapping(path)) == []


def test_a_sensitivity_file_is_one_that_its_schema_takes() -> None:
    right = {"schema": "commplan/sensitivity/v1", "attn_out": [1.0, 2], "mlp_out": [0.5, 1]}
    assert against("sensitivity", right) == []
    assert against("sensitivity", right | {"mlp_out": [-1]}) and against("sensitivity", right | {"attn_in": [1]})


def test_what_init_writes_is_what_the_schemas_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sheet = "--vendor nvidia --memory-gb 288 --memory-gb-per-s 8000 --bf16-tflops 2500 --link switch "
    sheet += "--link-gb-per-s 900 --devices-per-node 8 --num-nodes 2 --node-link-gb-per-s 50"
    answer("init", "hardware", "--name", "b9", *sheet.split())
    answer("init", "deployment", "qwen3-8b", "--hardware", "b9.yaml", "-o", "d.yaml")
    assert against("hardware", read_mapping("b9.yaml")) == against("deployment", read_mapping("d.yaml")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tp: 2", "tp: 0"),
        ("tp: 2", "tp: two"),
        ("tp: 2", "tp: 2, attndp: 1"),
        ("weights: fp32", "weights: fp33"),
        ("prefill:", "prefil:"),
        ("executor: transformers\n", ""),
        ("commplan/deployment/v1", "commplan/deployment/v2"),
        ("tokens: [1, 64]", "tokens: [1]"),
        ("pin: []", "pin: [{op: all_reduc}]"),
        ("tensor_parallel", "tensor"),
        ("range_tolerance: 0.005", "range_tolerance: 1"),
    ],
)
def test_a_spoiled_deployment_is_one_that_its_schema_refuses(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(TEXT)
    assert against("deployment", read_mapping(path)) == []
    path.write_text(TEXT.replace(old, new, 1))
    assert against("deployment", read_mapping(path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vendor: nvidia", "vendor: intel"),
        ("backend: nccl", "backend: mpi"),
        ("topology: switch", "topology: torus"),
        ("provenance: datasheet, ", ""),
        ("gemm_efficiency: {value: 0.9", "gemm_efficiency: {value: 90"),
        ("devices_per_node: 8\n", ""),
        ("latency_us", "latency"),
    ],
)
def test_a_spoiled_machine_is_one_that_its_schema_refuses(old: str, new: str, tmp_path: Path) -> None:
    text = (FOLDERS["hardware"] / "h20-8.yaml").read_text()
    assert old in text
    path = tmp_path / "h.yaml"
    path.write_text(text.replace(old, new, 1))
    assert against("hardware", read_mapping(path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("all_reduce: {impl", "all_reduc: {impl"),
        ("all_reduce: {impl", "all_reduce: {imp"),
        ("mlp_out", "mlp_ot"),
        ("end: true", "end: false"),
        ("numerics: reordered", "numerics: loose"),
        ("role: target", "role: guest"),
        ("layers: 0-59", "layers: all"),
        ("stock_us", "stock"),
        ("prefill:", "prefil:"),
    ],
)
def test_a_spoiled_strategy_file_is_one_that_its_schema_refuses(old: str, new: str, tmp_path: Path) -> None:
    text = (FOLDERS["strategy"] / "deepseek-r1-h20-tp8.yaml").read_text()
    assert old in text
    path = tmp_path / "s.yaml"
    path.write_text(text.replace(old, new, 1))
    assert against("strategy", read_mapping(path))


@pytest.mark.parametrize("name", KINDS)
def test_every_op_is_spelled_in_the_schema_as_its_record_says(name: str) -> None:
    kind = KINDS[name]
    (spelled,) = [each for each in schema("strategy")["$defs"]["Op"]["anyOf"] if "properties" in each]
    assert set(spelled["properties"][name]["properties"]) == set(kind.parameters)
    bare = next(each for each in schema("strategy")["$defs"]["Op"]["anyOf"] if "enum" in each)["enum"]
    assert (name in bare) == (not kind.algorithms)


def test_what_a_docstring_says_of_a_field_is_shown_with_it() -> None:
    link = schema("hardware")["$defs"]["Link"]["properties"]
    assert link["bandwidth_gb_per_s"]["description"] == "per device, one direction, all its links together"
    assert "left out: no" in link["multicast"]["description"]
    measured = schema("deployment")["$defs"]["ModeSpec"]["properties"]["measured_step_us"]["description"]
    assert measured.endswith("they scale what is not communication")


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_a_schema_is_printed_or_written_and_the_same_each_time(kind: str, tmp_path: Path) -> None:
    printed = run("schema", kind)
    assert (printed.code, printed.err) == (0, "")
    assert schema(kind)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema(kind)["title"] == f"commplan {kind}"
    run("schema", kind, "-o", tmp_path / "s.json")
    assert (tmp_path / "s.json").read_text() == printed.out == run("schema", kind).out


def test_the_commands_of_the_docs_write_the_schemas_that_its_first_line_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path(".schemas").mkdir()
    commands = re.findall(r"^commplan (schema .*)$", text, re.MULTILINE)
    assert [run(*command.split()).code for command in commands] == [0, 0]
    (named,) = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", text, re.MULTILINE)
    assert json.loads(Path(named).read_text()) == schema("deployment")
    for kind in KINDS_OF_FILES:
        assert f"`{kind}`" in text


def test_a_file_may_begin_with_the_line_of_a_language_server(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"# yaml-language-server: $schema=.schemas/deployment.json\n{TEXT}")
    assert answer("plan", path)["modes"]
