#!/bin/sh
# Build the wheel, install it into a clean environment, and use it there on made-up text.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
venv=${VENV:-.venv}
uv=$(command -v uv || echo "$root/$venv/bin/uv")
rm -rf build/wheel
"$venv/bin/python" -m maturin build --quiet --release --out build/wheel
"$venv/bin/python" -m venv build/wheel/venv
"$uv" pip install --quiet --python build/wheel/venv/bin/python build/wheel/pylm-*.whl
mkdir build/wheel/work
cd build/wheel/work
"$root/$venv/bin/python" -c '
import random
random.seed(0)
words = ["cat", "dog", "sees", "likes", "the", "a", "small", "red"]
for _ in range(3000):
    print(" ".join(random.choices(words, k=8)) + ".")' >corpus.txt
pylm="../venv/bin/pylm"
"$pylm" --version
"$pylm" tokenize corpus.txt --format lines --vocab-size 300
"$pylm" train --steps 30 --context 32 --batch-size 8 --set model.n_layers=2 --set model.width=64 --set model.n_heads=2
"$pylm" generate --prompt "the cat" --max-tokens 20 --seed 0
