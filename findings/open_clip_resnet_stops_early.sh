#!/usr/bin/env bash
# open_clip 3.3.0: `stop_early` of forward_intermediates means the opposite in a ModifiedResNet.
#
# `forward_intermediates(indices=[...], stop_early=True)` is documented to end at the last layer that is asked for, and
# its default, False, to run the whole network. A VisionTransformer does so. A ModifiedResNet (RN50 and the like) runs
# all stages with True, and ends early with False.
#
# Expected: stage 2 of 5 (the stem is 0) with stop_early=True: stages 3 and 4 are not computed, as in the transformer.
# Seen: they are computed with True, and left out with False. The features are the same.
#
# Output:
#   VisionTransformer: layers after the features computed with stop_early=False 2, with True 0
#   ModifiedResNet: layers after the features computed with stop_early=False 0, with True 2
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q open_clip_torch==3.3.0 torch==2.11.0 torchvision==0.26.0
cat > "$folder/run.py" <<'PY'
import open_clip
import torch

text = open_clip.CLIPTextCfg(context_length=4, vocab_size=8, width=16, heads=1, layers=1)
vision = {
    "VisionTransformer": dict(image_size=32, layers=4, width=32, head_width=16, patch_size=8),
    "ModifiedResNet": dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=64, patch_size=None),
}
later = {}
for name, settings in vision.items():
    network = open_clip.CLIP(16, open_clip.CLIPVisionCfg(**settings), text).visual.eval()
    assert type(network).__name__ == name
    if name == "ModifiedResNet":
        layers, index = [network.layer3, network.layer4], 2
    else:
        layers, index = network.transformer.resblocks[2:], 1
    calls, features = [], []
    for layer in layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    later[name] = []
    for stop_early in (False, True):
        calls.clear()
        out = network.forward_intermediates(
            torch.ones(1, 3, *[settings["image_size"]] * 2),
            indices=[index],
            stop_early=stop_early,
            intermediates_only=True,
        )
        features += out["image_intermediates"]
        later[name].append(len(calls))
    assert torch.equal(*features)
    print(f"{name}: layers after the features computed with stop_early=False {later[name][0]}, with True {later[name][1]}")
assert later == {"VisionTransformer": [2, 0], "ModifiedResNet": [0, 2]}, later
PY
"$folder/venv/bin/python" "$folder/run.py"
