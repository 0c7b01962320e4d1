#!/bin/bash
# mmengine 0.10.7, torch 2.13.0 (CPU), Python 3.11.
#
# A warm-up of one step: LinearLR (or ConstantLR) with begin=0, end=1.
# Expected: the first step has the low rate, and the rate of the optimizer holds from the second step on, as with torch's
#   LinearLR and ConstantLR of total_iters=1, which MMEngine's are made from.
# Seen: the rate stays at start_factor (factor) times the rate for ever, without a warning. The schedulers come to their
#   last value at the step end - 1, which is the first step here, where the first value is set; end - begin - 1 = 0 steps
#   remain. For the same reason a warm-up of W steps is over one step earlier than torch's of total_iters=W.
#
#   torch   LinearLR    0.001 1.000 1.000 1.000
#   mmengine LinearLR   0.001 0.001 0.001 0.001
#   torch   ConstantLR  0.001 1.000 1.000 1.000
#   mmengine ConstantLR 0.001 0.001 0.001 0.001
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet mmengine==0.10.7 torch==2.13.0 "setuptools<82"

"$folder/env/bin/python" - <<'PYTHON'
import warnings

import torch
from mmengine.optim import scheduler as theirs
from torch.optim import lr_scheduler as torchs

warnings.simplefilter("ignore")


def rates(build):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, values = build(optimizer), []
    for _ in range(4):
        values.append(round(optimizer.param_groups[0]["lr"], 6))
        optimizer.step()
        scheduler.step()
    return values


for name, factor in (("LinearLR", "start_factor"), ("ConstantLR", "factor")):
    low = {factor: 1e-3}
    torch_rates = rates(lambda optimizer: getattr(torchs, name)(optimizer, total_iters=1, **low))
    their_rates = rates(lambda optimizer: getattr(theirs, name)(optimizer, by_epoch=False, begin=0, end=1, **low))
    for package, values in (("torch", torch_rates), ("mmengine", their_rates)):
        print(f"{package:8} {name:10}", *(f"{value:.3f}" for value in values))
    assert torch_rates == [0.001, 1.0, 1.0, 1.0], torch_rates
    assert their_rates == [0.001, 0.001, 0.001, 0.001], their_rates
PYTHON
