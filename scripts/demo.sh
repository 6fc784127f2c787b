#!/bin/sh
# The main job on real text, from nothing: environment, release build, tokenizer, training, a sample, a picture.
#
#   DEMO_SECONDS  time for training (default 180)
set -eu
cd "$(dirname "$0")/.."
sh scripts/environment.sh
"${VENV:-.venv}/bin/python" examples/demo.py --seconds "${DEMO_SECONDS:-180}"
