#!/usr/bin/env bash
# Sets up .venv-npu, where tests/npu run: the real torch_npu over libraries that stand in for CANN. Minutes, most of
# them downloads; nothing to do the second time. `PYTHON=python3.11 tests/npu/setup.sh` names the Python.
#
# An environment of its own, because torch loads torch_npu wherever it is installed: without CANN `import torch` fails.
# TORCH_DEVICE_BACKEND_AUTOLOAD=0 would cure torch, but not transformers, which imports torch_npu by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PYTHON=${PYTHON:-python3}
ENVIRONMENT=.venv-npu
BIN=$ENVIRONMENT/bin

fail() { echo "tests/npu/setup.sh: $*" >&2; exit 1; }

[[ $(uname -s) == Linux ]] || fail "torch_npu is published for Linux only"
for tool in gcc nm readelf; do
  command -v "$tool" >/dev/null || fail "$tool not found; it makes stand-ins for CANN (Debian, Ubuntu: apt install gcc)"
done

if ! "$BIN/python" -c 'import pip' 2>/dev/null; then
  command -v "$PYTHON" >/dev/null || fail "$PYTHON not found; name a Python, as in: PYTHON=python3.11 $0"
  echo "Creating $ENVIRONMENT with $("$PYTHON" --version)"
  "$PYTHON" -m venv --clear "$ENVIRONMENT" || fail "no virtual environment (Debian, Ubuntu: apt install python3-venv)"
fi

pip() { "$BIN/python" -m pip install --quiet --disable-pip-version-check --constraint constraints/npu.txt "$@"; }
echo "Installing torch, torch_npu and transformers into $ENVIRONMENT (minutes)"
pip setuptools
pip pytest --no-build-isolation --editable '.[runtime,npu]' ||
  fail "pip has not installed constraints/npu.txt for $("$BIN/python" --version), see above; name another Python?"

"$BIN/python" tests/npu/cann_stubs.py
"$BIN/python" -c 'import torch, torch_npu as npu; print("torch", torch.__version__, "imports torch_npu", npu.__version__)'
