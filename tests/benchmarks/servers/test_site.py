"""What travels to a GPU machine without a package index: packed whole, changed only where it must be, set up again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def site(bench, tmp_path: Path) -> Path:
    """What of the packages is changed."""
    texts: dict[str, str] = {}
    for one in bench.patches.PATCHES:
        texts[one.file] = texts.get(one.file, "if True:\n    pass\n") + one.old
    return write(tmp_path / "site", texts)


def test_patched_texts_are_gone_and_stand_ins_are_there(bench, site: Path) -> None:
    bench.patches.patch(site)
    for one in bench.patches.PATCHES:
        text = (site / one.file).read_text()
        assert one.new in text and one.old not in text
    assert "from sgl_kernel.stand_in import" in (site / "sgl_kernel" / "__init__.py").read_text()
    assert (site / "sgl_kernel" / "stand_in.py").exists() and (site / "pycountry.py").exists()


def test_another_release_is_not_patched_in_the_dark(bench, site: Path) -> None:
    (site / "sglang/srt/layers/dual_gemm.py").write_text("other = 1\n")
    with pytest.raises(ValueError, match=r"dual_gemm\.py: what is to be changed stands there 0 times"):
        bench.patches.patch(site)


def test_of_the_compiled_kernels_only_python_is_unpacked(bench, tmp_path: Path) -> None:
    wheel, other = tmp_path / "sglang_kernel-1-py3.whl", tmp_path / "other-1-py3.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (
            "sgl_kernel/__init__.py",
            "sgl_kernel/sm90/ops.so",
            "triton_kernels/x.py",
            "sglang_kernel-1.dist-info/METADATA",
        ):
            archive.writestr(name, "")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("other/fast.so", "")
    bench.pack.unpack([wheel, other], tmp_path / "site")
    found = {
        path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*") if path.is_file()
    }
    assert found == {"sgl_kernel/__init__.py", "sglang_kernel-1.dist-info/METADATA", "other/fast.so"}


def test_nothing_larger_than_what_travels_is_left(bench, tmp_path: Path) -> None:
    folder = write(tmp_path / "site", {"a.py": "1\n"})
    target = tmp_path / "x.tar.xz"
    with pytest.raises(ValueError, match=r"x\.tar\.xz would have 0\.0 MiB, more than 1e-06"):
        bench.pack.archive({"site": folder}, target, 1e-6)
    assert not target.exists()
    bench.pack.archive({"site": folder}, target, 1)
    with tarfile.open(target) as archive:
        assert archive.getnames() == ["site", "site/a.py"]


def test_wheels_are_asked_for_by_version_and_nothing_comes_along(bench, tmp_path: Path) -> None:
    command = bench.pack.download_command("python3.12", tmp_path)
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert not [word for word in command if "index" in word or "://" in word]
    lines = (bench.folder / "site" / "packages.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+]+", line) for line in pinned)
    assert {"sglang==0.5.23", "sglang-kernel==0.4.10"} <= set(pinned)
    assert len({line.split("==")[0].lower().replace("_", "-") for line in pinned}) == len(pinned)


def test_the_stand_ins_offer_what_the_packed_kernels_do_not_have(bench) -> None:
    text = (bench.folder / "site" / "sgl_kernel_stand_in.py").read_text()
    (listed,) = re.findall(r"__all__ = (\[.*?\])", text, re.DOTALL)
    for name in re.findall(r'"(\w+)"', listed):
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), name


NORMS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from sgl_kernel_stand_in import fused_add_rmsnorm, rmsnorm
torch.manual_seed(0)
x, residual, weight = torch.randn(5, 96), torch.randn(5, 96), torch.randn(96)
def norm(t):
    return t * torch.rsqrt((t * t).mean(-1, keepdim=True) + 1e-6) * weight
total, wanted = x + residual, norm(x + residual)
parts = torch.randn(5, 3, 2 * 96)[..., :96]  # rows of a wider tensor, as heads of a fused projection are
torch.testing.assert_close(rmsnorm(parts, weight), norm(parts))
fused_add_rmsnorm(x, residual, weight)
torch.testing.assert_close(residual, total)
torch.testing.assert_close(x, wanted)
"""


@pytest.mark.slow
def test_the_stand_in_norms_are_norms(bench) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-c", NORMS, str(bench.folder / "site")]
    subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, check=True)


@pytest.mark.slow
def test_a_checkout_that_was_carried_is_the_installed_commplan(bench, tmp_path: Path) -> None:
    bench.pack.pack_checkout(tmp_path)
    with tarfile.open(tmp_path / "commplan.tar.xz") as archive:
        archive.extractall(tmp_path / "target", filter="data")
    checkout, site = tmp_path / "target" / "checkout", tmp_path / "site"
    assert (checkout / "benchmarks" / "servers" / "sglang.py").exists()
    write(site, {"commplan/gone.py": "", "commplan-0.0.1.dist-info/METADATA": ""})  # of an earlier time
    script = tmp_path / "install_checkout.py"
    subprocess.run([sys.executable, "-I", str(script), str(checkout), str(site)], check=True)
    assert not (site / "commplan" / "gone.py").exists()
    assert [path.name for path in site.glob("*.dist-info")] == ["commplan-0.1.0.dist-info"]
    for package in ("planner/executors/sglang.yaml", "runtime/servers/sglang/plugin.py", "configs/models", "_plan.py"):
        assert (site / "commplan" / package).exists()
    look = (
        "from importlib.metadata import entry_points; import commplan; print(commplan.__file__); "
        "print(*[p.value for p in entry_points(group='sglang.srt.plugins')])"
    )
    environment = {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", look], env=environment, capture_output=True, text=True, check=True
    )
    where, points = done.stdout.splitlines()
    assert where == str(site / "commplan" / "__init__.py")
    assert "commplan.runtime.servers.sglang.plugin:register" in points.split()


@pytest.fixture
def sources(bench, tmp_path: Path) -> Path:
    """Of FlashInfer's sources what is cut."""
    texts: dict[str, str] = {}
    for one in bench.flashinfer_site.CUTS:
        texts[one.file] = texts.get(one.file, "kept\n") + f"{one.first}\ncut {one.file}\n{one.last}\n"
    return write(tmp_path / "data", texts)


def test_of_flashinfers_sources_the_cuts_and_nothing_else_is_cut(bench, sources: Path) -> None:
    bench.flashinfer_site.cut(sources)
    for one in bench.flashinfer_site.CUTS:
        text = (sources / one.file).read_text()
        assert one.first not in text and "cut" not in text.split()
        assert one.last in text and text.startswith("kept\n")


def test_another_flashinfer_is_not_cut_in_the_dark(bench, sources: Path) -> None:
    one = bench.flashinfer_site.CUTS[0]
    (sources / one.file).write_text(one.first + "\n")
    with pytest.raises(ValueError, match="'default:' does not follow"):
        bench.flashinfer_site.cut(sources)
    (sources / one.file).write_text("other\n")
    with pytest.raises(ValueError, match="stands there 0 times, not once"):
        bench.flashinfer_site.cut(sources)


def test_of_flashinfer_nothing_travels_that_its_sums_do_not_import(bench, tmp_path: Path) -> None:
    found = bench.flashinfer_site
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "flashinfer_python-0.7.2-py3-none-any.whl", "w") as archive:
        for name in (*found.PYTHON, "decode", "norm", "fused_moe/core"):
            archive.writestr(f"flashinfer/{name}.py", "")
        archive.writestr("flashinfer/__init__.py", "import flashinfer.decode")
        archive.writestr("flashinfer/data/csrc/x.cu", "")
        archive.writestr("flashinfer_python-0.7.2.dist-info/METADATA", "Name: flashinfer-python")
    site = tmp_path / "site"
    data = found.unpack(wheels, tmp_path / "scratch", site)
    assert (data / "csrc" / "x.cu").exists()
    laid = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    own = {f"flashinfer/{name}" for name in (*(f"{name}.py" for name in found.PYTHON), *found.STAND_INS)}
    assert laid == own | {"flashinfer_python-0.7.2.dist-info/METADATA"}
    assert "import flashinfer.decode" not in (site / "flashinfer" / "__init__.py").read_text()


def test_flashinfers_module_is_compiled_with_the_package_that_loads_it(bench) -> None:
    lines = (bench.folder / "site" / "packages.txt").read_text().split()
    assert len([line for line in lines if line.startswith(bench.pack.COMPILED_WITH)]) == 1


def test_setup_names_what_pack_writes(bench) -> None:
    text = (bench.folder / "site" / "setup.sh").read_text()
    archives = ("site.tar.xz", "commplan.tar.xz", "flashinfer.tar.xz")
    for name in (*archives, "install_checkout.py", "sgl_kernel_stand_in.py"):
        assert name in text
    subprocess.run(["bash", "-n", str(bench.folder / "site" / "setup.sh")], check=True)
