"""Outputs of benchmarks become calibrations: the right bytes, us, ranks and impls, and nothing that cannot be."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from commplan.planner.descriptions.calibration import Calibration
from commplan.planner.strategy.yaml_file import read_mapping

from ..cli.commandline import answer, refused, run
from .published import FOLDER, nccl, nccl_json, rccl_json, text_of, vllm_json


class Outputs:
    """A folder with outputs, and the calibration that import-table makes of one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.target = folder, folder / "own.yaml"

    def write(self, text: str, name: str = "output.txt") -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def imported(self, text: str, *options: object) -> Calibration:
        return self.of(self.write(text), *options)

    def of(self, file: Path, *options: object) -> Calibration:
        answer("import-table", file, "-o", self.target, *options)
        return Calibration.model_validate(read_mapping(self.target))

    def refused(self, text: str, *options: object) -> dict[str, object]:
        error = refused("import-table", self.write(text), "-o", self.target, *options)
        assert not self.target.exists(), "nothing is written where something is wrong"
        return error


@pytest.fixture
def outputs(tmp_path) -> Outputs:
    return Outputs(tmp_path)


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_a_published_run_over_two_nodes_gives_its_table(outputs):
    found = outputs.of(FOLDER / "nccl_2x8_h100.txt", "--op", "all_reduce", "--nodes", 2)
    (table,) = found.tables
    assert (table.op, table.impl, table.dtype, table.group_size) == ("all_reduce", "nccl", "fp32", 16)
    assert (table.message_bytes[0], table.latency_us[0]) == (8, 135.8)
    assert (table.message_bytes[-1], table.latency_us[-1]) == (8589934592, 47535)
    assert found.machine == "16 x NVIDIA H100 80GB HBM3"
    assert found.provenance == "measured"


def test_a_published_run_of_rccl_tests_is_of_rccl_and_says_where_it_was_published(outputs):
    url = "https://github.com/ROCm/rccl/issues/1562"
    found = outputs.of(FOLDER / "rccl_8_mi300x.txt", "--op", "all_reduce", "--source", url, "--hardware", "mi300x-8")
    assert found.tables[0].impl == "rccl"
    assert found.provenance == "table"
    assert url in found.source


def test_a_published_run_of_hccl_test_says_everything_by_its_command_line(outputs):
    found = outputs.of(FOLDER / "hccl_8.txt", "--machine", "8 NPUs")
    (table,) = found.tables
    assert (table.op, table.impl, table.dtype, table.group_size) == ("all_reduce", "hccl", "fp32", 8)
    assert (table.message_bytes[-1], table.latency_us[-1]) == (67108864, 2630.2)


def test_a_published_table_of_vllm_becomes_us_and_exact_sizes(outputs):
    options = ("--group", 4, "--dtype", "bf16", "--machine", "4 x H100", "--excerpt")
    found = outputs.of(FOLDER / "vllm_4_h100.txt", *options)
    tables = {table.impl: table for table in found.tables}
    assert set(tables) == {"nccl", "vllm_one_shot", "vllm_two_shot", "multimem", "torch_two_shot"}
    assert tables["vllm_one_shot"].message_bytes[0] == 32 * 8192 * 2
    assert tables["vllm_one_shot"].latency_us == (10, 15, 19, 22, 30, 38)


def test_a_whole_output_of_vllm_says_its_ranks_and_type(outputs):
    text = (
        "World Size: 4, Data Type: torch.bfloat16, Hidden Size: 8192\n" + text_of("vllm_4_h100.txt").split("\n", 1)[1]
    )
    text += "All times are in milliseconds (ms) per allreduce operation\n"
    assert outputs.imported(text, "--machine", "4 x H100").tables[0].group_size == 4
    outputs.target.unlink()
    assert outputs.refused(text, "--machine", "x", "--group", 8)["field"] == "--group"
    assert outputs.refused(text.replace("milliseconds", "seconds"), "--machine", "x")["message"]
    assert outputs.refused(text.replace("8192\n", "4096\n"), "--machine", "x")["field"] == "Tensor Shape"


def test_a_published_table_of_sglang_is_in_us_with_graphs_apart_from_eager(outputs):
    options = ("--group", 8, "--dtype", "bf16", "--op", "all_reduce", "--machine", "8 x A100")
    found = outputs.of(FOLDER / "sglang_mscclpp_a100.txt", *options)
    tables = {table.impl: table for table in found.tables}
    assert set(tables) == {"nccl", "nccl_eager", "mscclpp", "mscclpp_eager"}
    assert (tables["nccl"].message_bytes[0], tables["nccl"].latency_us[0]) == (2048, 44.267)


def test_sglangs_other_script_is_in_ms_and_waits_for_the_host(outputs):
    found = outputs.of(FOLDER / "sglang_all_reduce_4.txt", "--machine", "4 GPUs")
    tables = {table.impl: table for table in found.tables}
    assert set(tables) == {"custom_one_shot_eager", "torch_symm_mem_eager"}
    custom = tables["custom_one_shot_eager"]
    assert (custom.group_size, custom.dtype) == (4, "fp16")
    assert (custom.message_bytes[-1], custom.latency_us[-1]) == (32 << 20, 251)


@pytest.mark.parametrize(("program", "op"), [("all_gather", "all_gather"), ("alltoall", "all_to_all")])
def test_sizes_of_a_gather_are_the_whole_buffer(outputs, program, op):
    (table,) = outputs.imported(nccl(program)).tables
    assert (table.op, table.message_bytes[0]) == (op, 1 << 20)


def test_in_place_times_are_taken_where_they_are_asked_for(outputs):
    (out,) = outputs.imported(nccl()).tables
    (inside,) = outputs.imported(nccl(), "--in-place").tables
    assert inside.latency_us[0] == pytest.approx(1.1 * out.latency_us[0], rel=1e-3)


def test_types_have_tables_of_their_own_and_others_are_counted(outputs):
    file = outputs.write(nccl(dtypes=("half", "bfloat16", "double")))
    said = answer("import-table", file, "-o", outputs.target)
    assert said["left_out"] == {"of type double": 3}
    found = Calibration.model_validate(read_mapping(outputs.target))
    assert {table.dtype for table in found.tables} == {"fp16", "bf16"}


def test_several_runs_in_one_file_are_told_apart(outputs):
    found = outputs.imported(nccl() + nccl("all_gather") + nccl(ranks=4))
    assert {(t.op, t.group_size) for t in found.tables} == {("all_reduce", 8), ("all_gather", 8), ("all_reduce", 4)}


def test_repeats_of_a_run_give_their_median_and_spread(outputs):
    files = [outputs.write(nccl(us=us), f"{us}.txt") for us in (40.0, 50.0, 90.0)]
    answer("import-table", *files, "-o", outputs.target)
    (table,) = Calibration.model_validate(read_mapping(outputs.target)).tables
    assert table.latency_us[0] == pytest.approx(50 + (1 << 20) / 1e5, abs=0.01)
    assert table.relative_spread


def test_groups_of_a_split_run_are_counted_apart(outputs):
    (table,) = outputs.imported(nccl(ranks=4, groups=2)).tables
    assert table.group_size == 4


def test_what_mpirun_puts_before_a_line_is_no_part_of_it(outputs):
    for prefix in ("[1,0]<stdout>:", "[0] ", "0: "):
        text = "".join(f"{prefix}{line}\n" for line in nccl().splitlines())
        assert outputs.imported(text).tables[0].group_size == 8


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_of_nccl_tests_counts_the_devices_of_each_process(outputs):
    found = outputs.imported(nccl_json())
    (table,) = found.tables
    assert (table.group_size, table.message_bytes) == (8, (1 << 20, 1 << 24))
    assert (found.library, found.machine) == ("nccl 2.29.7", "8 x NVIDIA H100 80GB HBM3")


def test_json_of_rccl_tests_holds_both_ways(outputs):
    found = outputs.imported(json.dumps(rccl_json()), "--machine", "8 x MI300X", "--in-place")
    (table,) = found.tables
    assert (table.impl, table.dtype, table.group_size) == ("rccl", "bf16", 8)
    assert table.latency_us[0] == pytest.approx(41 + (1 << 20) / 1e5, abs=0.001)


def test_json_of_vllm_is_read_in_full(outputs):
    found = outputs.imported(vllm_json(), "--machine", "4 x H100", "--impl", "ca_1stage=custom_one_shot")
    tables = {table.impl: table for table in found.tables}
    assert tables["custom_one_shot"].latency_us == (10.21, 14.52)
    assert tables["nccl"].message_bytes == (32 * 8192 * 2, 64 * 8192 * 2)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (nccl_json()[:-40], None),
        (nccl_json(average_bus_bandwidth=None), "average_bus_bandwidth"),
        (nccl_json(results=[]), "results"),
        (nccl_json(average_bus_bandwidth={"bandwidth": 1.0}), "Avg bus bandwidth"),
        (json.dumps(rccl_json() + rccl_json()[-1:]), "[4]"),
        (vllm_json(sequence_lengths=[32, 64, 128]), "results"),
        (vllm_json(dtype="torch.float64"), None),
        ('{"a": 1}', None),
    ],
)
def test_json_that_is_cut_off_or_no_output_is_refused(outputs, text, field):
    assert outputs.refused(text, "--machine", "x")["field"] == field


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_times_in_another_unit_are_refused(outputs):
    assert "another unit" in str(outputs.refused(nccl(scale=1e-3))["message"])
    ms = nccl().replace("(us)", "(ms)")
    assert "(us)" in str(outputs.refused(ms)["message"])


def test_sizes_of_one_rank_are_refused(outputs):
    text = text_of("hccl_8.txt").replace("all_reduce_test", "all_gather_test")
    lines = [line for line in text.splitlines() if "|" not in line or "data_size" in line]
    rows = [f"{size}|{100 + size / 1e5}|{8 * size / (100 + size / 1e5) / 1e3}|success" for size in (1 << 20, 1 << 26)]
    lines[1] = lines[1].replace("8192", str(1 << 20))
    error = outputs.refused("\n".join([*lines, *rows]), "--machine", "x")
    assert "sizes of one rank" in str(error["message"])


def test_wrong_results_are_refused(outputs):
    for text in (
        nccl().replace("  0\n", "  3\n", 1).replace("  0  ", "  3  ", 1),
        nccl().replace(" : 0 OK", " : 2 FAILED"),
    ):
        assert "wrong" in str(outputs.refused(text)["message"])
    failed = text_of("hccl_8.txt").replace("success", "failed", 1)
    assert outputs.refused(failed, "--machine", "x")["field"] == "check_result"


def test_results_that_were_not_checked_are_said_to_be_so(outputs):
    text = text_of("hccl_8.txt").replace("success", "NULL")
    said = run("import-table", outputs.write(text), "-o", outputs.target, "--machine", "x")
    assert "did not check the results of 14 points" in said.out


def test_a_declared_group_that_the_header_denies_is_refused(outputs):
    error = outputs.refused(nccl(ranks=8), "--group", 4)
    assert (error["field"], error["value"]) == ("--group", 4)


def test_a_declared_group_that_bandwidths_deny_is_refused(outputs):
    text = "".join(line for line in nccl(ranks=8).splitlines(keepends=True) if "Rank" not in line)
    assert outputs.imported(text, "--group", 8, "--machine", "x").tables[0].group_size == 8
    outputs.target.unlink()
    assert outputs.refused(text, "--group", 4, "--machine", "x")["field"] == "busbw"


def test_a_lost_line_of_a_rank_is_refused(outputs):
    text = "".join(line for line in nccl().splitlines(keepends=True) if "Rank  3" not in line)
    assert outputs.refused(text)["field"] == "Rank"


def test_programs_that_knew_nothing_of_each_other_are_refused(outputs):
    text = nccl().replace("Rank  1", "Rank  0")
    assert "without MPI" in str(outputs.refused(text)["message"])


def test_several_nodes_are_declared(outputs):
    assert outputs.refused(nccl(hosts=2))["field"] == "--nodes"
    assert outputs.refused(nccl(hosts=2), "--nodes", 4)["field"] == "--nodes"
    rack = outputs.imported(nccl(hosts=2), "--nodes", 1).imported
    assert rack is not None
    assert rack[0].nodes == 1
    found = outputs.imported(nccl(hosts=2), "--nodes", 2)
    assert found.imported is not None
    assert found.imported[0].nodes == 2


def test_an_output_that_is_cut_off_is_refused(outputs):
    whole = nccl()
    for text in (
        whole.split("# Avg")[0],
        whole.split("# Out")[0][:-30],
        text_of("hccl_8.txt").rsplit("\n", 2)[0],
    ):
        assert "cut off" in str(outputs.refused(text, "--machine", "x")["message"])


def test_rows_that_are_missing_in_the_middle_are_found_by_the_average(outputs):
    lines = nccl().splitlines(keepends=True)
    without = [line for line in lines if not line.startswith(f"  {1 << 22} ")]
    assert outputs.refused("".join(without))["field"] == "Avg bus bandwidth"
    assert len(outputs.imported("".join(without), "--excerpt").tables[0].message_bytes) == 2


def test_outputs_of_several_tools_in_one_file_are_refused(outputs):
    assert "several tools" in str(outputs.refused(nccl() + text_of("hccl_8.txt"))["message"])


@pytest.mark.parametrize("text", [nccl(), text_of("hccl_8.txt")], ids=["nccl-tests", "hccl_test"])
def test_an_impl_of_a_column_that_there_is_not_is_refused(outputs, text):
    error = outputs.refused(text, "--impl", "custom=vllm_custom", "--machine", "x")
    assert (error["field"], error["value"]) == ("--impl", "custom")


def test_another_type_than_declared_is_refused(outputs):
    error = outputs.refused(nccl(dtypes=("bfloat16",)), "--dtype", "int8")
    assert (error["field"], error["value"]) == ("--dtype", "int8")
    assert outputs.imported(nccl(dtypes=("bfloat16",)), "--dtype", "bf16").tables[0].dtype == "bf16"


def test_another_op_than_declared_is_refused(outputs):
    assert outputs.refused(nccl("all_gather"), "--op", "all_reduce")["field"] == "--op"
    error = outputs.refused(
        text_of("nccl_reduce_scatter_8_h100.txt"), "--op", "all_reduce", "--group", 8, "--excerpt", "--machine", "x"
    )
    assert error["field"] == "busbw"


def test_graphs_and_single_launches_are_not_one_table(outputs):
    files = [outputs.write(nccl(graph=graph), f"{graph}.txt") for graph in (0, 5)]
    assert refused("import-table", *files, "-o", outputs.target)["field"] == "graph"


@pytest.mark.parametrize("hidden", ["--group", "--dtype", "--op"])
def test_what_an_output_does_not_say_is_asked_for(outputs, hidden):
    given = {"--group": 8, "--dtype": "bf16", "--op": "all_reduce", "--machine": "x"}
    options = [part for name, value in given.items() if name != hidden for part in (name, value)]
    assert outputs.refused(text_of("sglang_mscclpp_a100.txt"), *options)["field"] == hidden


def test_a_row_whose_columns_moved_is_refused(outputs):
    text = text_of("vllm_4_h100.txt").replace("0.010               0.017", "0.017               0.010")
    options = ("--group", 4, "--dtype", "bf16", "--machine", "x", "--excerpt")
    assert outputs.refused(text, *options)["field"] == "Best"


def test_a_size_that_the_type_denies_is_refused(outputs):
    options = ("--group", 4, "--dtype", "fp32", "--machine", "x", "--excerpt")
    assert outputs.refused(text_of("vllm_4_h100.txt"), *options)["field"] == "Tensor Size"


def test_one_size_is_no_table(outputs):
    assert "one size is no table" in str(outputs.refused(nccl(sizes=(1 << 20,)))["message"])


@pytest.mark.parametrize("text", ["", "hello\n", "\x00", "1 2 3\n", "[1,0]<stdout>:\n"])
def test_what_is_no_output_is_refused_with_what_is(outputs, text):
    assert "nccl-tests" in str(outputs.refused(text)["message"])


def test_a_column_that_is_not_there_gets_a_suggestion(outputs):
    error = outputs.refused(vllm_json(), "--machine", "x", "--impl", "ca_1stag=custom_one_shot")
    assert "ca_1stage" in str(error["message"])


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.txt")))
def test_a_damaged_output_is_refused_or_read_and_never_a_crash(outputs, name):
    given = {"nccl_2x8": (16, 2), "vllm_4": (4, 1), "sglang_all": (4, 1)}
    group, nodes = next((said for start, said in given.items() if name.startswith(start)), (8, 1))
    options = ["--group", group, "--nodes", nodes, "--op", "all_reduce", "--machine", "x", "--excerpt"]
    options += ["--dtype", "bf16"] if name.startswith(("vllm", "sglang_m")) else []
    text, chance = text_of(name), random.Random(name)
    for _ in range(60):
        damaged = list(text)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(damaged))
            until = at + chance.choice((0, 1, 1, 8, 200))
            damaged[at:until] = chance.choice(("", "x", "-", "9", ".", "|", "\n", "²", " "))
        code = run("import-table", outputs.write("".join(damaged)), "-o", outputs.target, *options).code
        assert code in (0, 2)


@pytest.mark.parametrize("text", [nccl_json(), json.dumps(rccl_json()), vllm_json()], ids=["nccl", "rccl", "vllm"])
def test_damaged_json_is_refused_or_read_and_never_a_crash(outputs, text):
    chance = random.Random(text)
    words = ("null", "[]", "{}", '"x"', "-1", "1e400", "true", "0", "9" * 30)
    values = [match.span() for match in re.finditer(r'(?<=: )("[^"]*"|[\d.]+|\{|\[)', text)]
    for _ in range(120):
        start, end = chance.choice(values)
        damaged = text[:start] + chance.choice(words) + text[end:]
        code = run("import-table", outputs.write(damaged), "-o", outputs.target, "--machine", "x").code
        assert code in (0, 2)


# ---- the machine, plans and where a table is from --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hardware", "field"),
    [
        (nccl(ranks=8), "h200-2", "group_size"),
        (nccl(ranks=8), "mi300x-8", "--hardware"),
        (vllm_json().replace("0.01", "0.00001"), "h100-8", "tables[0].latency_us"),
    ],
)
def test_tables_that_a_machine_cannot_give_are_refused(outputs, text, hardware, field):
    assert outputs.refused(text, "--hardware", hardware, "--machine", "x")["field"] == field


def test_two_nodes_do_not_stand_for_one(outputs):
    assert outputs.refused(nccl(hosts=2), "--nodes", 2, "--hardware", "h200-8")["field"] == "--hardware"
    outputs.imported(nccl(hosts=2), "--nodes", 2)
    use = f"hardware.calibrations=[{{file: {outputs.target}}}]"
    error = refused("plan", "qwen3-235b-h200-tp8", "-o", outputs.folder / "s.yaml", "--set", use)
    assert "on 2 nodes" in error["message"]


def test_an_import_is_planned_with_at_once_and_explained_by_its_file(outputs):
    file = outputs.write(nccl(ranks=4, us=1.0, bytes_per_us=1e6, sizes=(1 << 16, 1 << 20, 1 << 28)))
    said = answer("import-table", file, "-o", outputs.target, "--hardware", "h100-8")
    plan = outputs.folder / "s.yaml"
    assert run("plan", "qwen2.5-72b-h100-tp4", "-o", plan, "--set", said["set"]).code == 0
    asked = ("--mode", "prefill", "--tokens", 4096, "--layer", 3, "--op", "all_reduce")
    library = "numerics.pin=[{op: all_reduce, impl: nccl, boundary: attn_out}]"
    text = run("explain", "qwen2.5-72b-h100-tp4", *asked, "--set", said["set"], "--set", library).out
    assert "measured: nccl-tests 2.18.0: output.txt" in text


def test_tables_of_no_group_here_are_said_to_price_nothing(outputs):
    outputs.imported(nccl(ranks=4))
    use = f"hardware.calibrations=[{{file: {outputs.target}}}]"
    said = run("plan", "qwen3-235b-h200-tp8", "-o", outputs.folder / "s.yaml", "--set", use)
    assert "own is of 4 ranks, and the groups here have 8: nothing is priced by it" in said.err


def test_the_file_tool_and_version_are_in_the_calibration(outputs):
    found = outputs.imported(nccl())
    assert found.imported is not None
    (entry,) = found.imported
    assert (entry.file, entry.tool, entry.version, entry.group_size) == ("output.txt", "nccl-tests", "2.18.0", 8)
    assert found.library == "nccl 2.29.7"


def test_the_same_outputs_give_the_same_bytes(outputs):
    outputs.imported(nccl())
    first = outputs.target.read_bytes()
    outputs.imported(nccl())
    assert outputs.target.read_bytes() == first


def test_an_output_is_not_overwritten(outputs):
    file = outputs.write(nccl())
    assert refused("import-table", file, "-o", file)["kind"] == "overwrites_input"
