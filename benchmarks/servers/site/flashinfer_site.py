"""What SGLang 0.5.23 asks of FlashInfer 0.7.2 where it sums and norms in one kernel, for a machine without an index.

By default SGLang sums DeepSeek-V3 and Qwen3-MoE so, up to 2048 tokens. That takes the Python below of it, and one
compiled module, which nvcc 13 makes here in some minutes for sm_90a; where FlashInfer is installed, that is compiled at
the first call. The kernels that these servers call are FlashInfer's own, unchanged. Cases that they never call are cut
out of the switch statements before them: other dtypes than bf16, quantised outputs, 16 ranks, and another all-reduce. A
module with all of them would take an hour to compile. A call of one that is cut raises FlashInfer's own error.

Nothing else of FlashInfer is there, and SGLang is told so (patches.py).
"""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

# What SGLang 0.5.23 names. It needs apache-tvm-ffi, as SGLang itself, and nvidia-ml-py and cuda-bindings, which an
# image with PyTorch for CUDA has.
WHEEL = "flashinfer_python==0.7.2"
PYTHON = (
    *("_build_meta", "api_logging", "compilation_context", "cuda_utils", "fi_trace", "utils", "version"),
    *("comm/abstractions", "comm/allreduce", "comm/comm_backend", "comm/cuda_ipc", "comm/dlpack_utils"),
    *(
        "comm/fd_exchange",
        "comm/mapping",
        "comm/mnnvl",
        "comm/torch_symmetric_memory",
        "comm/trtllm_ar",
        "comm/trtllm_mnnvl_ar",
    ),
    *("comm/workspace_base", "jit/_cuda_architecture", "jit/comm", "jit/core", "jit/cpp_ext", "jit/env", "jit/spdlog"),
    *("jit/utils", "trace/template", "trace/templates/comm"),
)
# Another backend of FlashInfer's makes multicast objects; a fault in them takes more than one program down.
_COMM = """from .allreduce import allreduce_fusion, create_allreduce_fusion_workspace
from .mnnvl import SymmDeviceMemory
from .trtllm_ar import AllReduceFusionPattern


def _refuse(*_):
    raise RuntimeError("multicast over NVLink stays off here")


SymmDeviceMemory._setup_multicast = _refuse
"""
# The packages' own __init__ import all of FlashInfer.
STAND_INS = {
    "__init__.py": "from .version import __version__ as __version__\n",
    "comm/__init__.py": _COMM,
    "jit/__init__.py": "from .comm import gen_trtllm_mnnvl_comm_module as gen_trtllm_mnnvl_comm_module\n",
    "trace/__init__.py": "",
    "trace/templates/__init__.py": "",
    # Imported, and called for other formats and on other cards.
    "fp4_quantization.py": "_compute_swizzled_layout_sf_size = None\n",
}
MODULE = "trtllm_comm"
SOURCES = ("trtllm_allreduce.cu", "trtllm_allreduce_fusion.cu")


class Cut(NamedTuple):
    """Text of a file from `first` up to `last`, which stays."""

    file: str
    first: str
    last: str


_EXPORT = "TVM_FFI_DLL_EXPORT_TYPED_FUNC("
_CASE = "    case AllReduceFusionPattern::kARResidualRMSNorm"
CUTS = (
    Cut("include/flashinfer/comm/trtllm_allreduce_fusion.cuh", f"{_CASE}FP8Quant:", "    default:"),
    Cut("include/flashinfer/comm/trtllm_allreduce_fusion.cuh", "    case 16:\n      DISPATCH_PATTERN", "    default:"),
    Cut("csrc/trtllm_allreduce_fusion.cu", "      case float16_code:", "      case bfloat16_code:"),
    Cut("csrc/trtllm_allreduce_fusion.cu", "      case float32_code:", "      default:"),
    Cut("csrc/trtllm_allreduce.cu", "void trtllm_custom_all_reduce(", f"{_EXPORT}trtllm_lamport_initialize,"),
    Cut("csrc/trtllm_allreduce.cu", f"{_EXPORT}trtllm_custom_all_reduce,", ""),
)
# Those that FlashInfer gives itself for sm_90a, but that nothing is compressed: xz does that better over all kernels.
FLAGS = (
    *("-std=c++17", "-O3", "-DNDEBUG", "-use_fast_math", "--expt-relaxed-constexpr", "--compiler-options=-fPIC"),
    *("-static-global-template-stub=false", "--compress-mode=none", "-gencode=arch=compute_90a,code=sm_90a"),
    *("-DFLASHINFER_ENABLE_F16", "-DFLASHINFER_ENABLE_BF16", "-DFLASHINFER_ENABLE_FP8_E4M3"),
    *("-DFLASHINFER_ENABLE_FP8_E5M2", "-DFLASHINFER_ENABLE_FP8_E8M0", "-DFLASHINFER_ENABLE_FP4_E2M1"),
    *("-DCUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED",),
)


def cut(data: Path) -> None:
    """Cut out of FlashInfer's sources what these servers never call. ValueError names a text that is not there once."""
    for one in CUTS:
        text = (data / one.file).read_text()
        before, *rest = text.split(one.first)
        if len(rest) != 1:
            raise ValueError(f"{one.file}: {one.first.strip()!r} stands there {len(rest)} times, not once")
        _, found, after = rest[0].partition(one.last) if one.last else ("", "x", "")
        if not found:
            raise ValueError(f"{one.file}: {one.last.strip()!r} does not follow {one.first.strip()!r}")
        (data / one.file).write_text(before + one.last + after)


def compile_module(data: Path, tvm_ffi: Path, folder: Path) -> Path:
    """FlashInfer's module of fused sums, as MODULE.so in a folder. `data`: its cut sources; `tvm_ffi`: that package."""
    places = [data / "include", data / "csrc", data / "spdlog" / "include", tvm_ffi / "include"]
    own = [data / "cccl" / name for name in ("cub", "libcudacxx/include", "thrust")]
    included = [word for place in places for word in ("-isystem", str(place))] + [f"-I{place}" for place in own]
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in SOURCES:
        objects.append(folder / f"{source}.o")
        print(f"compiling {source}", flush=True)
        command = ["nvcc", *FLAGS, *included, "-c", str(data / "csrc" / source), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    module = folder / f"{MODULE}.so"
    linked = ["nvcc", "-shared", "-cudart", "shared", *map(str, objects), "-o", str(module)]
    subprocess.run(linked, check=True)
    subprocess.run(["strip", "--strip-unneeded", str(module)], check=True)
    return module


def unpack(wheels: Path, scratch: Path, site: Path) -> Path:
    """Lay the Python out in `site`; the folder of FlashInfer's sources in `scratch`."""
    for wheel in wheels.glob("flashinfer_python-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, [n for n in archive.namelist() if n.startswith("flashinfer")])
    package = scratch / "flashinfer"
    for name in PYTHON:
        target = site / "flashinfer" / f"{name}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / f"{name}.py", target)
    for name, text in STAND_INS.items():
        (site / "flashinfer" / name).write_text(text)
    for info in scratch.glob("flashinfer_python-*.dist-info"):
        (site / info.name).mkdir()
        shutil.copy(info / "METADATA", site / info.name)
    return package / "data"


def build(wheels: Path, tvm_ffi: Path, scratch: Path) -> Path:
    """The folder to pack: Python, and the module where FlashInfer looks before it would compile."""
    site = scratch / "site"
    site.mkdir(parents=True)
    data = unpack(wheels, scratch / "wheel", site)
    cut(data)
    module = compile_module(data, tvm_ffi, scratch / "objects")
    target = site / "flashinfer" / "data" / "aot" / MODULE
    target.mkdir(parents=True)
    shutil.copy(module, target / module.name)
    return site
