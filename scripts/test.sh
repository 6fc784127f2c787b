#!/bin/sh
# Everything that tests the project, from nothing: environment, Rust and Python, linters, types, the stub.
#
# Rust's checks run beside Python's: compilers leave a core idle half the time. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
sh scripts/environment.sh

step() { echo "== $*" >&2; "$@"; }

rust() {
    step cargo fmt --all --check &&
        step cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings &&
        step cargo test --quiet --workspace
}

mkdir -p build
rust >build/test-rust.log 2>&1 &
rust_job=$!
trap 'kill $rust_job 2>/dev/null || true' EXIT

step "$venv/bin/ruff" check .
step "$venv/bin/ruff" format --check .
step "$venv/bin/python" -m mypy
step "$venv/bin/python" -m mypy.stubtest pylm._bpe
step "$venv/bin/python" -m pytest --quiet "$@"

if wait $rust_job; then failed=0; else failed=1; fi
trap - EXIT
cat build/test-rust.log
exit $failed
