#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.17.0, torch 2.11.0): two LoRA adapters in one model, of which one trains token rows too
# (trainable_token_indices) and the other does not.
#
# Expected: load_adapter loads the second one, and save_pretrained writes both.
# Seen: loading and saving the one without token rows raises a KeyError, for TrainableTokensWrapper looks for tensors of
# every adapter (adapter_state_dict, adapter_state_dict_load_map), also of one that it does not have. ModulesToSaveWrapper,
# the other wrapper of this kind, asks first whether it has the adapter.
#
# Output:
#   load: KeyError 'base_model.model.embed.token_adapter.trainable_tokens_delta'
#   save: KeyError 'token_adapter.trainable_tokens_delta.plain'
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.11.0 peft==0.21.2 transformers==5.17.0 accelerate==1.15.0
cat > "$folder/run.py" <<'PY'
import tempfile

from peft import LoraConfig, PeftModel
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(8, 4), nn.Linear(4, 8)

    def forward(self, ids):
        return self.head(self.embed(ids))


def config(**more):
    return LoraConfig(r=2, target_modules=["head"], **more)


rows, plain = config(trainable_token_indices={"embed": [1]}), config()
with tempfile.TemporaryDirectory() as out:
    PeftModel(Model(), plain).save_pretrained(out)
    model, errors = PeftModel(Model(), rows, "rows"), {}
    try:
        model.load_adapter(out, "plain")
    except KeyError as error:
        errors["load"] = error
    model = PeftModel(Model(), rows, "rows")
    model.add_adapter("plain", plain)
    try:
        model.save_pretrained(out, selected_adapters=["plain"])
    except KeyError as error:
        errors["save"] = error
for name, error in errors.items():
    print(f"{name}: KeyError {error}")
assert len(errors) == 2
PY
"$folder/venv/bin/python" "$folder/run.py"
