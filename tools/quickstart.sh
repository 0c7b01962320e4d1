#!/usr/bin/env bash
# From a fresh clone to a tuned model: installs, creates the tiny world, tunes on it, evaluates, answers questions.
# With --real the same on weights and images from packages (projects/real_parts), with the options of its quickstart.py.
set -euo pipefail
if [[ $# -gt 0 && $1 != --real ]]; then
    echo "usage: bash $0 [--real [options of projects/real_parts/quickstart.py]]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$ROOT"
if [[ ${1-} == --real ]]; then
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/real.txt
    exec "$PYTHON" projects/real_parts/quickstart.py "${@:2}"
fi
CONFIG=configs/mmgpt/tiny_lora_joint.py
OUT=work_dirs/quickstart
rm -rf "$OUT"
mkdir -p "$OUT"
SECONDS_JSON=

# timed NAME COMMAND...: run the command and record its seconds.
timed() {
    local name=$1 start end
    shift
    start=$(date +%s)
    "$@"
    end=$(date +%s)
    SECONDS_JSON+="${SECONDS_JSON:+, }\"$name\": $((end - start))"
    echo "{$SECONDS_JSON}" >"$OUT/seconds.json"
}

# MMEngine's log is in the work directory, so only the progress bar is shown. On two cores, a process that loads data
# slows the training down.
tune() {
    "$PYTHON" tools/train.py "$CONFIG" --work-dir "$OUT" --cfg-options train_dataloader.num_workers=0 >"$OUT/train.txt"
}

echo "1/3 making the tiny world in data/tiny"
timed data "$PYTHON" projects/tiny_world/generate.py data/tiny --overwrite
echo "2/3 tuning with LoRA (log: $OUT/train.txt)"
timed train tune
echo "3/3 evaluating on held-out images"
"$PYTHON" tools/analysis_tools/quickstart_report.py "$CONFIG" "$OUT/latest.pth" --out "$OUT" --seconds "$OUT/seconds.json"

python=python
[[ $PYTHON == "$VENV/bin/python" ]] && python=.venv/bin/python
images=(data/tiny/images/heldout/*.png)
echo
echo "Talk to it:"
echo "    $python demo/chat.py $CONFIG $OUT/latest.pth --image ${images[0]}"
echo "    $python demo/gradio_demo.py $CONFIG $OUT/latest.pth"
