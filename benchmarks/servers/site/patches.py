"""What is changed in SGLang 0.5.23 and sglang-kernel 0.4.10 for a machine with torch 2.11 and without CUTLASS's Python.

Nothing that computes sums, layers or graphs is touched. A text that is not there once stops the packing.

Of FlashInfer the fused sums alone may travel (flashinfer_site.py). So SGLang is told that there is no FlashInfer but
where it asks for those sums: attention, sampling, routing, norms and quantised layers are then the same with them and
without.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Patch(NamedTuple):
    """A text of a file and what stands in its place."""

    file: str
    old: str
    new: str


# Where the fused sums are asked for.
_ASKS = ("    is_flashinfer_available,\n", "    are_flashinfer_sums_available as is_flashinfer_available,\n")
PATCHES = (
    # A kernel for SM100, whose module imports CUTLASS's Python before it asks for the GPU.
    Patch(
        "sglang/srt/layers/dual_gemm.py",
        "        if not is_cuda():\n            return None\n",
        "        return None  # no CUTLASS here, and no SM100\n",
    ),
    # The compiled ops are built for torch 2.14: five symbols are missing in 2.11.
    Patch(
        "sgl_kernel/__init__.py",
        "    common_ops = _load_architecture_specific_ops()\n",
        "    common_ops = None  # see stand_in.py\n",
    ),
    Patch(
        "sglang/srt/utils/common.py",
        '    return importlib.util.find_spec("flashinfer") is not None and is_cuda()\n',
        "    return False  # its fused sums at most, which ask by the function below\n\n\n"
        "@lru_cache(maxsize=1)\ndef are_flashinfer_sums_available():\n"
        '    return is_cuda() and importlib.util.find_spec("flashinfer") is not None\n',
    ),
    Patch("sglang/srt/layers/flashinfer_comm_fusion.py", *_ASKS),
    Patch("sglang/srt/layers/layer_boundary/residual/add_norm.py", *_ASKS),
    # The size of a probe. FlashInfer's kernel for SM90 makes no multicast object, and where multicast is off the driver
    # may refuse this question, which would turn the fused sums off.
    Patch(
        "sglang/srt/layers/flashinfer_comm_fusion.py",
        "        err, mc_granularity = cuda_driver.cuMulticastGetGranularity(\n            mc_prop,\n"
        "            cuda_driver.CUmulticastGranularity_flags.CU_MULTICAST_GRANULARITY_RECOMMENDED,\n        )\n",
        "        mc_granularity = alloc_granularity  # no multicast object is made here\n",
    ),
)
# gguf asks mistral_common, which asks pydantic_extra_types, which only wants this to be there.
MODULES = {
    "pycountry.py": '"""Stand-in: nobody looks a country up."""\n\n\ndef __getattr__(name):\n'
    '    if name.startswith("__"):\n        raise AttributeError(name)\n    return []\n'
}
STAND_IN = "\n    from sgl_kernel.stand_in import *  # noqa: E402\n"
# Not needed by a server of text: megabytes.
UNUSED = (
    "sglang/srt/rust_extensions/_bench*.so",
    "sglang/srt/rust_extensions/_multimodal*.so",
    "sglang/srt/rust_extensions/_server*.so",
    "mistral_common/data",
    "sglang/multimodal_gen/apps",
)


def patch(site: Path) -> None:
    """Change the packages that lie unpacked in a folder. ValueError names a text that is not there once."""
    for one in PATCHES:
        path = site / one.file
        text = path.read_text()
        if text.count(one.old) != 1:
            raise ValueError(f"{one.file}: what is to be changed stands there {text.count(one.old)} times, not once")
        path.write_text(text.replace(one.old, one.new))
    shutil.copy(HERE / "sgl_kernel_stand_in.py", site / "sgl_kernel" / "stand_in.py")
    with (site / "sgl_kernel" / "__init__.py").open("a") as file:
        file.write(STAND_IN)
    for name, text in MODULES.items():
        (site / name).write_text(text)


def prune(site: Path) -> None:
    """Remove what no server of text needs."""
    for pattern in UNUSED:
        for path in site.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
