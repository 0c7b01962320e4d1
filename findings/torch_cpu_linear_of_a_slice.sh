#!/usr/bin/env bash
# torch 2.11.0 on a CPU: a linear layer of the last token's states, cut out of a longer sequence, copies its weights.
#
# transformers computes the logits of the next token as head(states[:, -1:]), with states (1, L, D). That slice is
# contiguous (is_contiguous() is True), but keeps the stride of the whole sequence in its dimension of size 1, and
# torch.nn.functional.linear then takes a batched product (aten::bmm), which copies bfloat16 weights at each call.
# The same numbers in a tensor of their own, states[:, [-1]], take a plain product (aten::mm).
#
# Expected: the same time for both, as both are contiguous and have the same shape and values.
# Seen: in bfloat16 about twenty times the time for a vocabulary of 49,152 and width 576, with a copy of 54 MiB at each
# call; results are equal. In float32 there is no copy. torch 2.14.1 takes aten::mm for both. One thread, medians of
# processor time.
#
# Output (AMD EPYC):
#   torch.float32: slice 6.9 ms with aten::bmm, index 6.8 ms with aten::mm, ratio 1.0
#   torch.bfloat16: slice 77.8 ms with aten::bmm aten::copy_, index 3.5 ms with aten::mm, ratio 22.4
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.11.0 numpy==2.4.6
cat > "$folder/run.py" <<'PY'
import time
from statistics import median

import torch
from torch.nn.functional import linear
from torch.profiler import ProfilerActivity, profile

torch.set_num_threads(1)


def seconds(x, weight):
    times = []
    for _ in range(7):
        start = time.process_time()
        linear(x, weight)
        times.append(time.process_time() - start)
    return median(times)


def operators(x, weight):
    with profile(activities=[ProfilerActivity.CPU]) as events:
        linear(x, weight)
    slow = {event.key for event in events.key_averages() if event.self_cpu_time_total > 500}
    return slow & {"aten::mm", "aten::bmm", "aten::copy_"}


ratios, used = {}, {}
with torch.inference_mode():
    for dtype in (torch.float32, torch.bfloat16):
        states, weight = torch.randn(1, 97, 576, dtype=dtype), torch.randn(49152, 576, dtype=dtype)
        cut, own = states[:, -1:], states[:, [-1]]
        assert cut.is_contiguous() and own.is_contiguous() and torch.equal(cut, own)
        assert torch.allclose(linear(cut, weight), linear(own, weight), atol=1, rtol=0.02)
        times = seconds(cut, weight), seconds(own, weight)
        used[dtype] = operators(cut, weight), operators(own, weight)
        ratios[dtype] = times[0] / times[1]
        names = [" ".join(sorted(each)) for each in used[dtype]]
        print(
            f"{dtype}: slice {1e3 * times[0]:.1f} ms with {names[0]}, index {1e3 * times[1]:.1f} ms with {names[1]}, "
            f"ratio {ratios[dtype]:.1f}"
        )
assert "aten::copy_" in used[torch.bfloat16][0], "the weights are not copied any more"
assert used[torch.bfloat16][1] == {"aten::mm"}
assert ratios[torch.bfloat16] > 3
PY
"$folder/venv/bin/python" "$folder/run.py"
