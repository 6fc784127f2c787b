#!/bin/sh
# Make the environment: a virtual one with everything pinned in pyproject.toml, and the extension built for release.
#
#   VENV         its folder (default .venv)
#   PYTHON       the interpreter to make it with (default python3; 3.11 or newer)
#   TORCH        another torch requirement, such as "torch==2.11.*"; default: what pyproject.toml says
#   TORCH_INDEX  an index to take torch from, for a CPU build for one; default: the package index
#
# A torch that is there already, in the environment or in PYTHON's own packages, is kept.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
python=${PYTHON:-python3}

command -v cargo >/dev/null || { echo "error: cargo not found: pylm's core is Rust; install a toolchain (rustup.rs)" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $python is $("$python" -V 2>&1): pylm needs Python 3.11 or newer; name one with PYTHON=..." >&2; exit 1; }

if [ ! -x "$venv/bin/python" ]; then
    echo "environment: $venv" >&2
    if "$python" -c 'import torch' 2>/dev/null; then
        "$python" -m venv --system-site-packages "$venv"
    else
        "$python" -m venv "$venv"
    fi
fi
# uv installs torch in a quarter of pip's time; one that is there already is used, its cache with it.
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    [ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    uv=$venv/bin/uv
fi
if [ -n "${TORCH:-}${TORCH_INDEX:-}" ]; then
    "$uv" pip install --quiet --python "$venv/bin/python" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "${TORCH:-torch}"
fi
"$venv/bin/python" scripts/requirements.py >"$venv/requirements.txt"
"$uv" pip install --quiet --python "$venv/bin/python" -r "$venv/requirements.txt"
echo "building the extension (release)" >&2
VIRTUAL_ENV=$(cd "$venv" && pwd) PATH="$(dirname "$uv"):$PATH" "$venv/bin/python" -m maturin develop --uv --quiet --release
