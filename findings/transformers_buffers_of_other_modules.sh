#!/bin/bash
# transformers 5.17.0 and 5.24.0, torch 2.11.0 (CPU), Python 3.11.
#
# A PreTrainedModel with a module of another library that has a non-persistent buffer (timm's and open_clip's have some).
# Expected: after save_pretrained and from_pretrained the buffer has the value that the module's constructor gives it, or
#   the load is refused, since transformers builds models on the device 'meta', where it has none.
# Seen: the buffer is uninitialized memory (torch.empty_like), without a warning; only transformers' own classes compute
#   theirs again, in _init_weights. It happens as well where the module was built on the CPU and had its value.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ -z "${PYTHON:-}" ]; then
    python3.11 -m venv "$folder/env"
    "$folder/env/bin/pip" install --quiet transformers==5.17.0 torch==2.11.0
    PYTHON="$folder/env/bin/python"
fi

"$PYTHON" - "$folder/model" <<'PYTHON'
import sys

import torch
from transformers import PreTrainedConfig, PreTrainedModel


class Foreign(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8))
        self.register_buffer("table", torch.arange(8.0) + 1, persistent=False)


class Model(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        with torch.device("cpu"):
            self.foreign = Foreign()
        self.post_init()


model = Model(PreTrainedConfig())
model.save_pretrained(sys.argv[1])
# Memory that is freed with other values in it makes the fault visible.
waste = [torch.full((8,), 7e7) for _ in range(64)]
del waste
again = Model.from_pretrained(sys.argv[1])
print("built ", model.foreign.table.tolist())
print("loaded", again.foreign.table.tolist())
assert not torch.equal(model.foreign.table, again.foreign.table), "the buffer has its value: this is fixed"
PYTHON
