#!/usr/bin/env bash
# transformers 5.17.0: the tokenizer made of a GGUF file does not have the end of sequence that the file names.
#
# The file is valid input, written with llama.cpp's own package in the layout of the published
# SmolLM2-135M-Instruct.Q4_1.gguf: architecture llama, a byte-level BPE, bos_token_id 1 and eos_token_id 2.
#
# Expected: eos_token is token 2, `<|im_end|>`, as the config made of the same file says.
# Seen: eos_token is token 1, `<|im_start|>`. Whoever tunes or serves the model with this tokenizer ends its answers with
# a token that the model was never trained to end with. The config of the same call is right.
#
# Output:
#   config:    bos 1, eos 2
#   tokenizer: bos 1 <|im_start|>, eos 1 <|im_start|>
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.17.0 gguf==0.19.0 torch==2.11.0
cat > "$folder/run.py" <<'PY'
import sys
from pathlib import Path

import gguf
from transformers import AutoConfig, AutoTokenizer

root = Path(sys.argv[1])
tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "t", "h", "e", "Ġ", "th", "the"]
writer = gguf.GGUFWriter(root / "model.gguf", "llama")
for key, value in dict(block_count=1, context_length=64, embedding_length=8, feed_forward_length=16).items():
    writer.add_uint32(f"llama.{key}", value)
writer.add_uint32("llama.attention.head_count", 2)
writer.add_uint32("llama.attention.head_count_kv", 2)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("smollm")
writer.add_token_list(tokens)
writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1, 1])
writer.add_token_merges(["t h", "th e"])
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

config = AutoConfig.from_pretrained(root, gguf_file="model.gguf")
tokenizer = AutoTokenizer.from_pretrained(root, gguf_file="model.gguf")
print(f"config:    bos {config.bos_token_id}, eos {config.eos_token_id}")
pairs = {role: (getattr(tokenizer, f"{role}_token_id"), getattr(tokenizer, f"{role}_token")) for role in ("bos", "eos")}
print("tokenizer:", ", ".join(f"{role} {i} {token}" for role, (i, token) in pairs.items()))
assert config.eos_token_id == 2
assert pairs["eos"] == (1, "<|im_start|>")
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
