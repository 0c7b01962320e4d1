#!/usr/bin/env bash
# Runs the tests with the newest versions that the ranges in requirements/ allow, and with onedl-mmengine in place of
# mmengine: bash tests/newest.sh [arguments of pytest]
#
# The environment .venv-newest (about 7 GB) is made with the newest fitting Python, or brought up to date. Continuous
# integration runs tests/run.sh with the versions of requirements/tested.txt; this script shows what is about to break.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv-newest
PYTHON=$VENV/bin/python
MAIN='torch|torchvision|transformers|tokenizers|huggingface.hub|peft|accelerate|safetensors|(onedl-)?mmengine|mmcv-lite|'
MAIN+='mmpretrain|open.clip.torch|timm|bitsandbytes|numpy|scipy|pillow|setuptools|gradio|fastapi|pydantic|pytest'

make_environment() {
    local candidate
    for candidate in python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            "$candidate" -m venv "$VENV"
            return
        fi
    done
    echo "Python 3.11, 3.12 or 3.13 with its venv module is needed and was not found." >&2
    return 1
}

install_newest() {
    local file ranges=()
    for file in "$ROOT"/requirements/*.txt; do
        [[ $file == */tested.txt || $file == */onedl.txt ]] || ranges+=(-r "$file")
    done
    "$PYTHON" -m pip install --disable-pip-version-check --upgrade --upgrade-strategy eager "${ranges[@]}"
    # mmcv-lite brings mmengine. Removing it takes files of the fork along, which is therefore written again.
    "$PYTHON" -m pip uninstall --yes mmengine
    "$PYTHON" -m pip install --disable-pip-version-check --force-reinstall --no-deps -r "$ROOT/requirements/onedl.txt"
}

[[ -x $PYTHON ]] || make_environment
install_newest
cd "$ROOT"
export PATH="$VENV/bin:$PATH" PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
code=0
OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses 2 --dist loadfile "$@" || code=$?
echo "Tested with $("$PYTHON" --version) and"
"$PYTHON" -m pip list --disable-pip-version-check | grep -iE "^($MAIN) "
exit "$code"
