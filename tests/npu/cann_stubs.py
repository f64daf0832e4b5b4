"""Libraries that stand in for CANN, so that the real torch_npu wheel can be imported where there is no NPU.

    .venv-npu/bin/python tests/npu/cann_stubs.py

torch_npu is linked against CANN's libraries and cannot be loaded without their symbols. Its binaries are read for the
libraries and symbols that neither torch nor this process has, and gcc makes libraries with just these names. No symbol
does anything: there is one device in name, and whoever would use it gets an error code. So schemas, Meta kernels and
fake tensors work, and nothing can pretend to have run.

The libraries go to site-packages/torch_npu.libs, where the wheel's own rpath finds them: no variable has to be set.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

_TOOLS = {"gcc": "gcc", "nm": "binutils", "readelf": "binutils"}  # tool: package of Debian and Ubuntu
_ACL_INTERNAL_ERROR = 507899  # what every call returns: "an internal error occurs in the driver module"
_RETURNS_POINTER = ("aclCreate", "aclopCreate", "aclGetRecentErrMsg")
# Choosing a device, which torch does for tensors that are merely fake.
_DEVICE_IN_NAME = {
    "aclrtGetDeviceCount": "int aclrtGetDeviceCount(unsigned *count) { *count = 1; return 0; }",
    "aclrtGetDevice": "int aclrtGetDevice(int *device) { *device = 0; return 0; }",
    "aclrtSetDevice": "int aclrtSetDevice(int device) { return device != 0; }",
}


def main() -> None:
    """Make the libraries in the environment of this interpreter."""
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            sys.exit(f"{tool} not found: it makes the stand-ins for CANN; Debian and Ubuntu have it in {package}")
    packages = Path(sysconfig.get_path("platlib"))
    if not (packages / "torch_npu").is_dir():
        sys.exit(f"torch_npu is not installed in {packages}")
    binaries = _binaries(packages / "torch_npu")
    present = [*binaries, *(packages / "torch" / "lib").glob("*.so*")]
    libraries = _missing_libraries(binaries, present)
    symbols = _missing_symbols(binaries, present)
    folder = packages / "torch_npu.libs"
    folder.mkdir(exist_ok=True)
    for index, library in enumerate(libraries):  # one of them holds all symbols: they are looked up by name alone
        _link(folder / library, _source(symbols) if index == 0 else "")
    print(f"{len(symbols)} symbols of CANN in {len(libraries)} libraries: {', '.join(libraries)}")


def _binaries(package: Path) -> list[Path]:
    """What is loaded by `import torch_npu`: its extension and the libraries that this needs."""
    (extension,) = package.glob("_C.*.so")
    found, waiting = [extension], [extension]
    while waiting:
        for name in _needed(waiting.pop()):
            path = package / "lib" / name
            if path.exists() and path not in found:
                found.append(path)
                waiting.append(path)
    return found


def _needed(binary: Path) -> list[str]:
    lines = _output("readelf", "--dynamic", "--wide", str(binary))
    return [line.partition("[")[2].rstrip("]") for line in lines if "(NEEDED)" in line]


def _missing_libraries(binaries: list[Path], present: list[Path]) -> list[str]:
    here = {path.name for path in present}
    needed = {name for binary in binaries for name in _needed(binary)}
    return sorted(name for name in needed - here if not _loads(name))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _missing_symbols(binaries: list[Path], present: list[Path]) -> list[str]:
    undefined = {name for binary in binaries for kind, name in _symbols("--undefined-only", binary) if kind == "U"}
    defined = {name.partition("@")[0] for binary in present for _, name in _symbols("--defined-only", binary)}
    process = ctypes.CDLL(None)  # Python and the C library
    # A name with a version (memcpy@GLIBC_2.14) belongs to a system library.
    return sorted(name for name in undefined - defined if "@" not in name and not hasattr(process, name))


def _symbols(which: str, binary: Path) -> list[tuple[str, str]]:
    """(kind, name): U is a symbol that must be there, w one that may be missing."""
    return [
        (words[-2], words[-1]) for line in _output("nm", "--dynamic", which, str(binary)) if (words := line.split())
    ]


def _source(symbols: list[str]) -> str:
    functions = []
    for name in symbols:
        result = "0" if name.startswith(_RETURNS_POINTER) else str(_ACL_INTERNAL_ERROR)
        functions.append(_DEVICE_IN_NAME.get(name, f"long {name}(void) {{ return {result}; }}"))
    return "\n".join([*functions, ""])


def _link(library: Path, source: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(source)
        file.flush()
        soname = f"-Wl,-soname,{library.name}"
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", soname, "-o", library, file.name], check=True)


def _output(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    main()
