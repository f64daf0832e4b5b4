#!/usr/bin/env bash
# Sets up .venv-sglang, where tests/runtime/servers/sglang run: the real SGLang 0.5.23 with CPU builds of its
# dependencies, and commplan beside it. About four minutes, most of them downloads (3.4 GB on disk).
# `PYTHON=python3.11 tests/runtime/servers/sglang/setup.sh` names the Python.
#
# An environment of its own: SGLang pins transformers 5.19 and some forty packages that commplan has no use for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."

PYTHON=${PYTHON:-python3}
ENVIRONMENT=.venv-sglang
BIN=$ENVIRONMENT/bin

fail() { echo "tests/runtime/servers/sglang/setup.sh: $*" >&2; exit 1; }

[[ $(uname -s) == Linux && $(uname -m) == x86_64 ]] || fail "the wheel of SGLang 0.5.23 is for x86-64 Linux only"

if ! "$BIN/python" -c 'import pip' 2>/dev/null; then
  command -v "$PYTHON" >/dev/null || fail "$PYTHON not found; name a Python, as in: PYTHON=python3.11 $0"
  echo "Creating $ENVIRONMENT with $("$PYTHON" --version)"
  "$PYTHON" -m venv --clear "$ENVIRONMENT" || fail "no virtual environment (Debian, Ubuntu: apt install python3-venv)"
fi

pip() { "$BIN/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"; }
echo "Installing SGLang 0.5.23 and commplan into $ENVIRONMENT (minutes)"
pip --requirement constraints/sglang.txt ||
  fail "pip has not installed constraints/sglang.txt for $("$BIN/python" --version), see above; name another Python?"
pip --no-build-isolation --editable .

"$BIN/python" -P - <<'PYTHON'
from importlib.metadata import entry_points, version

found = [point.value for point in entry_points(group="sglang.srt.plugins")]
assert any(value.startswith("commplan.") for value in found), f"commplan's plugin is not installed: {found}"
print("SGLang", version("sglang"), "with torch", version("torch"), "finds the plugin", *found)
PYTHON
