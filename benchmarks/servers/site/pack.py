"""Packs SGLang 0.5.23 and its needs for a GPU machine without a package index, on a machine that has one.

    python benchmarks/servers/site/pack.py PYTHON3.12 SITE_FOLDER               # site.tar.xz, 57 MiB; a minute
    python benchmarks/servers/site/pack.py --checkout CHECKOUT_FOLDER           # commplan.tar.xz, 1 MiB; a second
    python benchmarks/servers/site/pack.py --flashinfer PYTHON3.12 SUMS_FOLDER  # flashinfer.tar.xz, 1 MiB; minutes

The second is of this checkout, and all that has to travel again after a change. The third has FlashInfer's fused sums,
which SGLang has by default for some models, and needs nvcc 13 (flashinfer_site.py). On the GPU machine, with them:

    bash CHECKOUT_FOLDER/setup.sh SITE_FOLDER CHECKOUT_FOLDER TARGET [SUMS_FOLDER]    # then `source TARGET/environment`

Wheels are for Linux on x86-64 and CPython 3.12. The kernels that sglang-kernel has compiled are left out (patches.py):
what takes their place is in sgl_kernel_stand_in.py.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import flashinfer_site
from patches import patch, prune

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]
MOST_MIB, MOST_MIB_OF_SUMS = 57, 3
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in GLIBC),
    *(f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")),
)
CARRIED = ("pyproject.toml", "README.md", "planner", "runtime", "configs", "benchmarks/servers")
KERNELS = "sglang_kernel"
COMPILED_WITH = "apache-tvm-ffi"
"""The package of packages.txt whose headers FlashInfer's module is compiled with, and which loads it."""


def download_command(
    python: str, folder: Path, wanted: Iterable[str] = ("-r", str(HERE / "packages.txt"))
) -> list[str]:
    """pip, asked for the wheels of the GPU machine and for nothing that they would bring along."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    what = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms]
    return [python, "-m", "pip", "download", "-q", *what, "-d", str(folder), *wanted]


def unpack(wheels: Iterable[Path], site: Path) -> None:
    """All wheels into one folder; of sglang-kernel its Python alone."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if wheel.name.startswith(KERNELS):
                names = [n for n in names if n.startswith(("sgl_kernel/", "sglang_kernel")) and not n.endswith(".so")]
            archive.extractall(site, names)


def archive(folders: dict[str, Path], target: Path, most_mib: float) -> float:
    """A .tar.xz of folders and files by the names they get; its MiB, or ValueError where it is larger than allowed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "site.tar"
        with tarfile.open(plain, "w") as tar:
            for name, path in folders.items():
                tar.add(path, name, filter=_without_caches)
        with target.open("wb") as out:
            subprocess.run(["xz", "-T0", "-3", "-c", str(plain)], stdout=out, check=True)
    mib = target.stat().st_size / 2**20
    if mib > most_mib:
        target.unlink()
        raise ValueError(f"{target.name} would have {mib:.1f} MiB, more than {most_mib}")
    return mib


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    skipped = {"__pycache__", ".mypy_cache", ".ruff_cache"} & set(member.name.split("/"))
    return None if skipped else member


def pack_site(python: str, target: Path, wheels: Path | None) -> None:
    """Download, unpack, change, pack. `wheels`: where they lie already."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, site = wheels or Path(scratch) / "wheels", Path(scratch) / "site"
        if wheels is None:
            subprocess.run(download_command(python, folder), check=True)
        site.mkdir()
        unpack(sorted(folder.glob("*.whl")), site)
        prune(site)
        patch(site)
        print(f"{target / 'site.tar.xz'}: {archive({'site': site}, target / 'site.tar.xz', MOST_MIB):.1f} MiB")


def pack_flashinfer(python: str, target: Path, wheels: Path | None) -> None:
    """Download, cut, compile, pack. `wheels`: where they lie already."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, headers = wheels or Path(scratch) / "wheels", Path(scratch) / "headers"
        if wheels is None:
            pinned = [line for line in (HERE / "packages.txt").read_text().split() if line.startswith(COMPILED_WITH)]
            subprocess.run(download_command(python, folder, [flashinfer_site.WHEEL, *pinned]), check=True)
        unpack(folder.glob("apache_tvm_ffi-*.whl"), headers)
        site = flashinfer_site.build(folder, headers / "tvm_ffi", Path(scratch) / "built")
        packed = target / "flashinfer.tar.xz"
        print(f"{packed}: {archive({'flashinfer': site}, packed, MOST_MIB_OF_SUMS):.1f} MiB")


def pack_checkout(target: Path) -> None:
    """What of this checkout travels, and the script that sets up."""
    found = {f"checkout/{name}": CHECKOUT / name for name in CARRIED}
    print(f"{target / 'commplan.tar.xz'}: {archive(found, target / 'commplan.tar.xz', 4):.1f} MiB")
    for name in ("setup.sh", "install_checkout.py"):
        shutil.copy(HERE / name, target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="?", help="a Python 3.12 with pip, to fetch wheels")
    parser.add_argument("target", type=Path, help="the folder that travels")
    parser.add_argument("--checkout", action="store_true", help="pack this checkout, nothing of SGLang's")
    parser.add_argument("--flashinfer", action="store_true", help="pack FlashInfer's fused sums alone; needs nvcc 13")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels that were downloaded before")
    options = parser.parse_args()
    if options.checkout:
        pack_checkout(options.target)
    else:
        pack = pack_flashinfer if options.flashinfer else pack_site
        pack(options.python or sys.executable, options.target, options.wheels)


if __name__ == "__main__":
    main()
