#!/bin/sh
# Everything that tests the project, from nothing: environment, Rust and Python, linters, types, the stub.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
sh scripts/environment.sh

step() { echo "== $*" >&2; "$@"; }
step cargo fmt --all --check
step cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
step cargo test --quiet --workspace
step "$venv/bin/ruff" check .
step "$venv/bin/ruff" format --check .
step "$venv/bin/python" -m mypy
step "$venv/bin/python" -m mypy.stubtest pylm._bpe
step "$venv/bin/python" -m pytest --quiet "$@"
