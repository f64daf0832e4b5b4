"""Tables of an installed package become a calibration: newest complete version, right units, nothing that cannot be."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.calibration.aiconfigurator import MODULE, import_system
from commplan.planner.descriptions.loader import find
from commplan.planner.strategy.yaml_file import read_mapping

from ..cli.commandline import refused, run

pyarrow = pytest.importorskip("pyarrow", reason="the extra `import` is not installed")
OPS = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")


def rows(ops: tuple[str, ...] = OPS, **changed: Any) -> list[dict[str, Any]]:
    """Three sizes of every op in both types over two and four ranks."""
    return [
        {"op_name": op, "nccl_dtype": dtype, "num_gpus": n, "message_size": size, "latency": 0.001 * n + 1e-9 * size}
        | changed
        for op in ops
        for dtype in ("half", "int8")
        for n in (2, 4)
        for size in (256, 4096, 65536)
    ]


class Package:
    """An invented package of the same make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / MODULE
        (self.folder / "systems" / "data").mkdir(parents=True)
        (self.folder / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")

    def write(
        self,
        version: str,
        table: list[dict[str, Any]],
        name: str = "nccl_perf",
        library: str = "nccl",
        system: str = "x100_sxm",
    ) -> Path:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        folder = self.folder / "systems" / "data" / system / "comm" / library / version
        folder.mkdir(parents=True, exist_ok=True)
        write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
        return folder / f"{name}.parquet"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Package:
    made = Package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    importlib.invalidate_caches()
    return made


def test_elements_become_bytes_and_milliseconds_microseconds(package):
    package.write("2.9", rows())
    found = import_system("x100_sxm")
    tables = {(t.op, t.dtype, t.group_size): t for t in found.calibration.tables}
    assert len(tables) == 16
    half, small = tables["all_gather", "bf16", 4], tables["all_gather", "int8", 4]
    assert half.message_bytes == (512, 8192, 131072)
    assert small.message_bytes == (256, 4096, 65536)
    assert half.latency_us == (4.0, 4.004, 4.066)
    assert tables["all_to_all", "bf16", 2].impl == "nccl"
    assert found.calibration.provenance == "table"


def test_the_newest_version_with_all_four_ops_is_taken(package):
    package.write("2.9", rows())
    package.write("2.27.3", rows(latency=0.5))
    package.write("2.29.2", rows(("all_gather", "alltoall")))
    found = import_system("x100_sxm").calibration
    assert found.library == "nccl/2.27.3"
    assert found.tables[0].latency_us[0] == 500


def test_repeats_give_their_median_and_spread(package):
    package.write("2.9", rows(latency=0.010) + rows(latency=0.012) + rows(latency=0.020))
    table = import_system("x100_sxm").calibration.tables[0]
    assert set(table.latency_us) == {12.0}
    assert table.relative_spread == pytest.approx(0.4167, abs=1e-4)


def test_the_custom_all_reduce_comes_from_graphs_alone(package):
    package.write("2.9", rows())
    custom = [
        {"op_name": "all_reduce", "kernel_source": f"SGLang_CustomAllReduce_{how}", "allreduce_dtype": "bfloat16",
         "num_gpus": 2, "message_size": size, "latency": latency}
        for how, latency in (("graph", 0.002), ("eager", 0.009)) for size in (128, 1024)
    ]  # fmt: skip
    package.write("0.5.14", custom, "custom_allreduce_perf", "sglang")
    found = import_system("x100_sxm")
    (table,) = [t for t in found.calibration.tables if t.impl == "custom_one_shot"]
    assert (table.message_bytes, table.latency_us) == ((256, 2048), (2.0, 2.0))
    assert (found.calibration.library, found.left_out) == ("nccl/2.9, sglang/0.5.14", 2)


@pytest.mark.parametrize(("system", "ranks"), [("x100_sxm", [2, 4]), ("l40s", [2])])
def test_over_pcie_the_custom_all_reduce_is_taken_for_two_ranks_alone(package, system, ranks):
    """Over more PCIe devices SGLang took NCCL, so the package's times there are not that kernel's."""
    custom = [
        {"op_name": "all_reduce", "kernel_source": "SGLang_CustomAllReduce_graph", "allreduce_dtype": "bfloat16",
         "num_gpus": n, "message_size": size, "latency": 0.002}
        for n in (2, 4) for size in (128, 1024)
    ]  # fmt: skip
    package.write("2.9", rows(), system=system)
    package.write("0.5.14", custom, "custom_allreduce_perf", "sglang", system)
    found = import_system(system)
    assert [t.group_size for t in found.calibration.tables if t.impl == "custom_one_shot"] == ranks
    assert found.left_out == 2 * (2 - len(ranks))


def test_other_ops_and_types_are_left_out_and_counted(package):
    package.write("2.9", rows() + rows(("broadcast",)) + rows(nccl_dtype="fp4"))
    assert import_system("x100_sxm").left_out == 12 + 48


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latency", 0.0), ("latency", -1.0), ("latency", float("nan")), ("latency", float("inf")), ("latency", None),
        ("message_size", 0), ("message_size", -4), ("message_size", None), ("num_gpus", 1), ("num_gpus", None),
        ("message_size", 1.5), ("latency", "fast"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_refused(package, field, value, tmp_path):
    package.write("2.9", rows(**{field: value}))
    error = refused("calibrate", "--import", "aiconfigurator:x100_sxm", "-o", tmp_path / "out.yaml")
    assert error["field"] == field
    assert "row 1" in error["message"]
    assert not (tmp_path / "out.yaml").exists()


def test_a_missing_column_op_or_file_is_refused(package):
    file = package.write("2.9", [{k: v for k, v in row.items() if k != "num_gpus"} for row in rows()])
    assert refused("calibrate", "--import", "aiconfigurator:x100_sxm")["field"] == "num_gpus"
    package.write("2.9", rows(("all_gather",)))
    assert "lacks all_reduce" in refused("calibrate", "--import", "aiconfigurator:x100_sxm")["message"]
    file.write_bytes(b"PAR1 cut off")
    assert "not a Parquet file" in refused("calibrate", "--import", "aiconfigurator:x100_sxm")["message"]
    file.unlink()
    assert "nccl_perf.parquet" in refused("calibrate", "--import", "aiconfigurator:x100_sxm")["message"]


def test_what_is_not_there_is_refused_with_the_way_out(package, monkeypatch):
    package.write("2.9", rows())
    assert "did you mean 'x100_sxm'" in refused("calibrate", "--import", "aiconfigurator:x100")["message"]
    assert refused("calibrate", "--import", "somewhere:x100_sxm")["field"] == "--import"
    assert refused("calibrate", "--import", "aiconfigurator:x100_sxm", "qwen3-0.6b-cpu-tp2")["field"] == "--import"
    monkeypatch.setattr("commplan.planner.calibration.aiconfigurator.MODULE", "no_such_module")
    assert "pip install '.[import]'" in refused("calibrate", "--import", "aiconfigurator:x100_sxm")["message"]


def test_the_file_is_one_that_hardware_can_name(package, tmp_path):
    package.write("2.9", rows())
    out = tmp_path / "mine.yaml"
    result = run("calibrate", "--import", "aiconfigurator:x100_sxm", "-o", out, "--name", "mine")
    assert result.code == 0, result
    plan = run("plan", "deepseek-r1-h200-tp2", "--set", f"hardware.calibrations=[{{file: {out}}}]")
    assert plan.code == 0, plan
    assert "table" in plan.out


def test_the_real_package_gives_the_tables_that_ship():
    pytest.importorskip(MODULE, reason="aiconfigurator-core is not installed")
    ours = read_mapping(find("h200-sxm", "calibrations", None, "calibration"))["tables"]
    shipped = {(t["op"], t["dtype"], t["group_size"]): t for t in ours if t["impl"] == "nccl"}
    found = [t for t in import_system("h200_sxm").calibration.tables if t.impl == "nccl"]
    assert len(found) == len(shipped) == 24
    for table in found:
        same = shipped[table.op, table.dtype, table.group_size]
        assert list(table.message_bytes) == same["message_bytes"]
        assert list(table.latency_us) == pytest.approx(same["latency_us"], abs=0.006)
