#!/usr/bin/env bash
# Sets up SGLang and commplan on a machine without a package index, of what pack.py has packed.
#   bash setup.sh SITE_FOLDER CHECKOUT_FOLDER TARGET [SUMS_FOLDER]; source TARGET/environment
# SGLang is unpacked and compiled once, commplan and the benchmark every time. Takes some 30 s. With SUMS_FOLDER servers have
# FlashInfer's fused sums as well, for SM90 alone; those too are unpacked once, but the folder is named every time.
set -euo pipefail
site=$(realpath "$1") carried=$(realpath "$2")
mkdir -p "$3"
target=$(realpath "$3")
if [ ! -f "$target/ready" ]; then
  tar -C "$target" -xJf "$site/site.tar.xz"
  (cd "$target/site" && python3 -m compileall -q -j 0 sglang transformers sgl_kernel fastapi pydantic openai) >/dev/null 2>&1 || true
  touch "$target/ready"
fi
rm -rf "$target/checkout"
tar -C "$target" -xJf "$carried/commplan.tar.xz"
python3 "$carried/install_checkout.py" "$target/checkout" "$target/site"
cp "$target/checkout/benchmarks/servers/site/sgl_kernel_stand_in.py" "$target/site/sgl_kernel/stand_in.py"
python3 -m compileall -q -j 0 "$target/site/commplan" || true
path=$target/site
if [ $# -gt 3 ]; then
  [ -d "$target/flashinfer" ] || tar -C "$target" -xJf "$4/flashinfer.tar.xz"
  path=$path:$target/flashinfer
fi
# What did not travel compiled is not compiled here: its sources stayed behind.
cat > "$target/environment" <<END
export PYTHONPATH=$path
export FLASHINFER_DISABLE_JIT=1 FLASHINFER_CUDA_ARCH_LIST=9.0a FLASHINFER_WORKSPACE_BASE=$target
cd $target/checkout
END
source "$target/environment"
python3 - <<'END'
import os
from importlib.metadata import entry_points, version
points = [point.value for point in entry_points(group="sglang.srt.plugins")]
assert any(value.startswith("commplan.") for value in points), f"commplan's plugin is not installed: {points}"
print(f"SGLang {version('sglang')}, torch {version('torch')}, commplan {version('commplan')}: {', '.join(points)}")
if ":" in os.environ["PYTHONPATH"]:
    from flashinfer.comm.trtllm_ar import get_trtllm_comm_module
    get_trtllm_comm_module()
    print(f"FlashInfer {version('flashinfer_python')}: its fused sums load")
END
