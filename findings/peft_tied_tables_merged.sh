#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.17.0, torch 2.13.0): LoRA on an output head that shares the token embedding's table.
#
# A random Llama of width 16 with tie_word_embeddings=True gets LoRA with trained (here: random) weights on lm_head, on
# embed_tokens, and on embed_tokens with ensure_weight_tying=True, which "will ensure that the adapters added to the tied
# layers are also tied".
#
# Expected: the model that merge_and_unload() returns gives the logits that the model with the adapter gave.
# Seen: it is another model. Beside the weights, an update of the head changes the head alone; merged, it is added into the
# table that the embedding uses too. With ensure_weight_tying=True both updates are added to the one table, each in full.
# peft warns that merging "can lead to complications"; it does not refuse.
#
# With tie_word_embeddings=False the same LoRA on lm_head merges exactly.
#
# Output:
#   tied, LoRA on lm_head: logits differ by 9.12
#   tied, LoRA on embed_tokens: logits differ by 9.18
#   tied, LoRA on embed_tokens, ensure_weight_tying: logits differ by 11.94
#   untied, LoRA on lm_head: logits differ by 0.00
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 peft==0.21.2 transformers==5.17.0 accelerate==1.15.0
cat > "$folder/run.py" <<'PY'
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")


@torch.no_grad()
def difference(tied, target, **options):
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=40)
    base = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=tied, initializer_range=0.3))
    assert (base.lm_head.weight is base.model.embed_tokens.weight) == tied
    model = get_peft_model(base, LoraConfig(r=4, target_modules=[target], task_type="CAUSAL_LM", **options)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.arange(20)[None]
    before = model(ids).logits
    return (model.merge_and_unload()(ids).logits - before).abs().max().item()


head, embedding = difference(True, "lm_head"), difference(True, "embed_tokens")
both = difference(True, "embed_tokens", ensure_weight_tying=True)
untied = difference(False, "lm_head")
print(f"tied, LoRA on lm_head: logits differ by {head:.2f}")
print(f"tied, LoRA on embed_tokens: logits differ by {embedding:.2f}")
print(f"tied, LoRA on embed_tokens, ensure_weight_tying: logits differ by {both:.2f}")
print(f"untied, LoRA on lm_head: logits differ by {untied:.2f}")
assert min(head, embedding, both) > 0.5 and untied < 1e-4
PY
"$folder/venv/bin/python" "$folder/run.py"
