#!/usr/bin/env bash
# Sets up the environment, then checks the style and runs the tests: bash tests/run.sh [arguments of pytest]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tools/setup_env.sh"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# The tests are many small computations: more threads than one only wait for each other, so two processes share the files.
OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses 2 --dist loadfile "$@"
