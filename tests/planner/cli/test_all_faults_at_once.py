"""What is wrong with a file is said at once, each fault with the line that it stands on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commplan.planner.descriptions.loader import load_hardware, load_setup
from commplan.planner.strategy.config_json import ConfigJson
from commplan.planner.strategy.errors import MOST_ERRORS, InputError, NoLegalPlanError, together
from commplan.planner.strategy.file import load
from commplan.planner.strategy.lines_of_files import Lines, located

from .commandline import answer, refused, run
from .deployments import TEXT, deployment

SMALL = "qwen3-0.6b-cpu-tp2"
HALF_A_MACHINE = """\
schema: commplan/hardware/v1
name: mine
vendor: nvidia
devices_per_node: 8
num_nodes: 2
compute:
  bf16_tflops: {value: 148, provenance: datasheet}
links:
  intra_node:
    topology: swich
"""


def faults(error: dict) -> dict[str, int]:
    return {each["field"]: each["line"] for each in (error, *error.get("others", []))}


def test_every_missing_figure_of_a_machine_is_named_at_once_with_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(HALF_A_MACHINE)
    error = refused("plan", SMALL, "--set", f"hardware={path}")
    assert {each["file"] for each in (error, *error["others"])} == {str(path)}
    assert faults(error) == {
        "description": 1,
        "backend": 1,
        "compute.bf16_tflops.source": 7,
        "compute.gemm_efficiency": 6,
        "compute.attention_efficiency": 6,
        "compute.gemm_tile_rows": 6,
        "memory": 1,
        "links.intra_node.topology": 10,
        "links.intra_node.bandwidth_gb_per_s": 9,
        "links.intra_node.efficiency": 9,
        "links.intra_node.latency_us": 9,
        "links.intra_node.collective_overhead_us": 9,
    }
    lines = run("plan", SMALL, "--set", f"hardware={path}").err.splitlines()
    assert f"{path}:6: compute.gemm_tile_rows: is missing and has no default" in lines


def test_what_modes_lack_is_named_beside_what_the_deployment_lacks(tmp_path: Path) -> None:
    text = TEXT.replace("executor: transformers\n", "").replace(", sequence_tokens: 32", "")
    path = tmp_path / "small.yaml"
    path.write_text(text.replace(", context_tokens: 128", ""))
    assert faults(refused("plan", path)) == {
        "executor": 1,
        "modes.prefill.sequence_tokens": 8,
        "modes.decode.context_tokens": 9,
    }


def test_a_second_node_without_a_link_is_named_beside_other_faults(tmp_path: Path) -> None:
    machine = (Path(__file__).parents[3] / "configs" / "hardware" / "cpu-gloo.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(machine.replace("vendor: cpu\n", "num_nodes: 2\n"))
    assert set(faults(refused("plan", SMALL, "--set", f"hardware={path}"))) == {"vendor", "links.inter_node"}


def test_a_misspelt_key_is_one_fault_not_two(tmp_path: Path) -> None:
    error = refused("plan", deployment(tmp_path, ("executor:", "excutor:")))
    assert (error["field"], error["line"], "others" in error) == ("excutor", 5, False)


def test_every_size_that_a_config_json_lacks_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{\n "architectures": ["OddForCausalLM"],\n "hidden_size": 64,\n "vocab_size": 10\n}')
    assert set(faults(refused("import-model", path, "--plain", "moe"))) == {
        "num_attention_heads",
        "num_hidden_layers",
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
    }


def test_a_misspelt_size_is_not_taken_for_one_left_out(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hiden_size": 4096}')
    error = refused("import-model", path)
    assert (error["field"], "hidden_size is left out" in error["message"]) == ("hiden_size", True)


def test_every_size_that_a_model_file_lacks_is_named_at_once(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "configs" / "models" / "deepseek-v2-lite.yaml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("v_head_dim", "qk_rope", "moe_inter"))]
    path = tmp_path / "model.yaml"
    path.write_text("\n".join([*kept, ""]))
    assert set(faults(refused("import-model", path))) == {"v_head_dim", "qk_rope_head_dim", "moe_intermediate_size"}


def test_a_quantised_config_that_lacks_a_size_is_still_refused(tmp_path: Path) -> None:
    config = json.loads((Path(__file__).parents[1] / "descriptions" / "hf_configs" / "qwen3-0.6b.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq", "group_size": 128}}))
    assert refused("import-model", path)["field"] == "quantization_config.bits"


def test_a_fault_between_two_descriptions_has_the_line_of_its_field(tmp_path: Path) -> None:
    error = refused("plan", deployment(tmp_path, ("{tp: 2", "{tp: 64")))
    assert (error["field"], error["line"]) == ("parallelism.tp", 6)


def test_a_fault_of_an_override_has_no_line(tmp_path: Path) -> None:
    error = refused("plan", deployment(tmp_path), "--set", "parallelism.tp=64")
    assert (error["file"], error["field"], error["line"]) == ("--set", "parallelism.tp", None)


def test_a_wrong_rule_of_a_deployment_has_its_line(tmp_path: Path) -> None:
    rules = "numerics:\n  loosest: reordered\n  pin:\n  - {op: all_reduce, boundary: mlp_out}\n  - {op: all_reduce}"
    path = tmp_path / "small.yaml"
    path.write_text("\n".join(rules if line.startswith("numerics") else line for line in TEXT.splitlines()) + "\n")
    error = refused("plan", path)
    assert (error["field"], error["line"]) == ("numerics.pin[1].boundary", 15)


# ---- strategy files --------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    answer("plan", "qwen3-32b-a2-tp2", "-o", tmp_path / "plan.yaml")
    return tmp_path / "plan.yaml"


def spoil(path: Path, old: str, new: str, last: bool = False) -> int:
    """Spoil the first or last line that holds `old`, and return its number."""
    lines = path.read_text().splitlines()
    found = [number for number, line in enumerate(lines) if old in line]
    number = found[-1 if last else 0]
    lines[number] = lines[number].replace(old, new)
    path.write_text("\n".join([*lines, ""]))
    return number + 1


@pytest.mark.parametrize("last", [False, True])
def test_an_illegal_op_of_a_hand_edited_strategy_file_has_the_line_of_its_run(plan: Path, last: bool) -> None:
    line = spoil(plan, "layers: 63, ", "layers: 63, mlp_in: all_gather, ", last)
    (error,) = {(e["line"], e["field"][-17:]) for e in run("validate", plan, "--json").json["files"][0]["errors"]}
    assert error == (line, ".layers.63.mlp_in")
    assert f"  line {line}: modes." in run("validate", plan).out


def test_a_misspelt_word_of_a_hand_edited_strategy_file_has_its_line(plan: Path) -> None:
    line = spoil(plan, "mlp_out", "mlp_ot")
    error = refused("explain", "qwen3-32b-a2-tp2", "--strategy", plan)
    assert (error["kind"], error["line"]) == ("unknown_key", line)
    assert run("validate", plan, "--json").json["files"][0]["errors"][0]["line"] == line


# ---- how lines are found ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("a", 1),
        ("a.b", 2),
        ("a.b[1]", 4),
        ("a.b[1].c", 5),
        ("a.b[7]", 2),
        ("a.no.such", 1),
        ("d", 1),
        ("e.layers.0.x", 7),
        ("e.layers.3.x", 8),
        ("e.layers.9.x", 6),
    ],
)
def test_a_field_stands_on_its_line_and_a_missing_one_where_it_belongs(field: str, line: int) -> None:
    text = "a:\n  b:\n  - 1\n  - k: 2\n    c: 3\ne: {layers: [\n  {layers: 0-2, x: 1},\n  {layers: '3,5', x: 1}]}\n"
    assert Lines(text).of(field) == line


@pytest.mark.parametrize("text", ["a: [1", "a: {", "? [a]\n: b", "a: " + "[" * 500, "", "\ud800: 1"])
def test_a_file_that_cannot_be_read_to_its_end_has_no_later_line_and_no_second_error(text: str) -> None:
    assert Lines(text).of("b") in (None, 1)


def test_a_fault_inside_of_a_list_is_not_one_of_its_length(tmp_path: Path) -> None:
    row = (
        "{op: all_reduce, impl: nccl, dtype: bf16, group_size: 2, message_bytes: [1024, 8192], latency_us: [10, .nan]}"
    )
    head = "schema: commplan/calibration/v1\nname: c\nmachine: m\nlibrary: l\nprovenance: measured\nsource: s\n"
    (tmp_path / "c.yaml").write_text(f"{head}ops: [all_reduce]\ntables:\n- {row}\n")
    error = refused("plan", "qwen3-32b-h200-tp2", "--set", f"hardware.calibrations=[{{file: {tmp_path / 'c.yaml'}}}]")
    assert error["field"].startswith("tables[0].latency_us") and "others" not in error


def test_a_fault_of_no_file_has_no_line(tmp_path: Path) -> None:
    assert located(InputError("no", file="--set", field="a")).line is None
    assert located(InputError("no", file=str(tmp_path), field="a")).line is None
    assert located(NoLegalPlanError("no", field="a")).line is None


def test_a_file_of_another_form_does_not_fill_the_screen() -> None:
    error = together([InputError(f"wrong {n}") for n in range(100)])
    assert str(error).count("\n") == MOST_ERRORS - 1


def test_a_config_is_read_one_field_at_a_time_where_nobody_asks_for_all() -> None:
    with pytest.raises(InputError):
        ConfigJson({}).size("hidden_size")


def test_who_reads_without_a_command_line_gets_lines_too(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_setup(str(deployment(tmp_path, ("{tp: 2", "{tp: 64"))))
    assert str(caught.value).startswith(f"{tmp_path / 'small.yaml'}:6: parallelism.tp: larger than the machine")
    (tmp_path / "mine.yaml").write_text(HALF_A_MACHINE)
    with pytest.raises(InputError) as caught:
        load_hardware(str(tmp_path / "mine.yaml"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert f"{tmp_path / 'mine.yaml'}:6: compute.gemm_tile_rows: is missing and has no default" in lines


def test_who_loads_a_strategy_file_gets_its_line(plan: Path) -> None:
    line = spoil(plan, "layers: 63, ", "layers: 63, mlp_in: all_gather, ")
    with pytest.raises(InputError, match=rf"plan.yaml:{line}: modes\.\w+\[\d\]\.layers\.63\.mlp_in"):
        load(plan)


def test_a_file_of_another_kind_has_one_fault(tmp_path: Path) -> None:
    error = refused("plan", deployment(tmp_path), "--set", f"hardware={deployment(tmp_path, name='other.yaml')}")
    assert (error["field"], error["line"], "others" in error) == ("schema", 1, False)
    (tmp_path / "config.json").write_text('{"architectures": ["X"], "hidden_size": 1, "vocab_size": 2}')
    error = refused("plan", deployment(tmp_path), "--set", f"hardware={tmp_path / 'config.json'}")
    assert (error["field"], "others" in error) == ("schema", False)
    assert "such a file holds `schema: commplan/hardware/v1`" in error["message"]


def test_what_is_accepted_is_listed_once_for_each_mapping(tmp_path: Path) -> None:
    path = deployment(tmp_path, ("name: small", "name: small\nxxxxxx: 1\nzzzzzz: 2"))
    error = refused("plan", path)
    assert "accepted: " in error["message"]
    assert [other["message"] for other in error["others"]] == ["unknown key"]
