#!/usr/bin/env bash
# transformers 5.24.0: a generation_config.json that from_pretrained reads, and that save_pretrained writes as long as
# nobody touches it, cannot be written any more once an unrelated setting is changed.
#
# The file is valid input: Vicuna's published one has these settings (temperature and top_p without do_sample), and
# 5.24.0 says of such files, in GenerationConfig.save_pretrained, that "published configs can always be saved back".
#
# Expected: after `config.pad_token_id = 0`, which the library itself advises ("Please set `pad_token_id` explicitly as
# `model.generation_config.pad_token_id=PAD_TOKEN_ID`"), it is written as before; at least, an error would be about what
# was changed. Whoever merges an adapter into such a model, or gives it a padding token, learns of it after all weights
# were computed, as model.save_pretrained writes this file on the way.
# Seen: ValueError about temperature and top_p, which nobody changed. (5.17.0 refuses the untouched one as well.)
#
# Output:
#   read and written untouched: {'eos_token_id': 2, 'temperature': 0.9, 'top_p': 0.6}
#   after pad_token_id = 0: ValueError about ['temperature', 'top_p']
#   after eos_token_id = [2, 1]: ValueError about ['temperature', 'top_p']
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0
cat > "$folder/run.py" <<'PY'
import json
import re
import sys
from pathlib import Path

from transformers import GenerationConfig

root = Path(sys.argv[1])
settings = dict(eos_token_id=2, temperature=0.9, top_p=0.6)
for name in ("base", "out"):
    (root / name).mkdir()
(root / "base" / "generation_config.json").write_text(json.dumps(settings))

GenerationConfig.from_pretrained(root / "base").save_pretrained(root / "out")
written = json.loads((root / "out" / "generation_config.json").read_text())
written.pop("transformers_version")
print("read and written untouched:", written)
assert written == settings

for name, value in dict(pad_token_id=0, eos_token_id=[2, 1]).items():
    config, blamed = GenerationConfig.from_pretrained(root / "base"), []
    setattr(config, name, value)
    try:
        config.save_pretrained(root / "out")
    except ValueError as error:
        blamed = re.findall(r"^- `(\w+)`", str(error), re.MULTILINE)
    print(f"after {name} = {value}: ValueError about {blamed}")
    assert blamed == ["temperature", "top_p"]
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
