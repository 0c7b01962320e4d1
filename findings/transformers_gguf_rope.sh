#!/usr/bin/env bash
# transformers 5.17.0: the scaling of rotary positions in a GGUF file is left out without a word.
#
# The file is valid input, written with llama.cpp's own package: a Llama with the keys of linear scaling by 4. (Llama 3.1
# and later have theirs as a tensor, rope_freqs.weight, which is left out as well.)
#
# Expected: rope_parameters of the config have the scaling, or an error says that it is not supported.
# Seen: the scaling is missing. The model loads, and computes other positions than the one in the file.
#
# Output:
#   {'rope_theta': 10000.0, 'rope_type': 'default'}
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.17.0 gguf==0.19.0 torch==2.11.0
cat > "$folder/run.py" <<'PY'
import sys
from pathlib import Path

import gguf
from transformers import AutoConfig

root = Path(sys.argv[1])
writer = gguf.GGUFWriter(root / "model.gguf", "llama")
for key, value in dict(block_count=1, context_length=8192, embedding_length=8, feed_forward_length=16).items():
    writer.add_uint32(f"llama.{key}", value)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_rope_freq_base(10000.0)
writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
writer.add_rope_scaling_factor(4.0)
writer.add_rope_scaling_orig_ctx_len(2048)
writer.add_tokenizer_model("gpt2")
writer.add_token_list(["a", "b"])
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

parameters = AutoConfig.from_pretrained(root, gguf_file="model.gguf").rope_parameters
print(parameters)
assert parameters["rope_type"] == "default"
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
