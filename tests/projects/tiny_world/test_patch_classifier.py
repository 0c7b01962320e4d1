import torch
from torch.nn.functional import cross_entropy

import projects.tiny_world.patch_classifier  # noqa: F401 (registers PatchClassifier)
from mmgpt.registry import MODELS


def test_loss_and_counts_by_head(tiny_clip):
    config = dict(
        type="PatchClassifier",
        vision=dict(type="OpenCLIPVision", path=tiny_clip),
        heads=dict(colour=3, shape=2),
        background_weight=0.5,
    )
    model = MODELS.build(config).eval()
    pixels = torch.randn(2, 3, 32, 32)
    labels = dict(colour=torch.randint(0, 3, (2, 16)), shape=torch.randint(0, 2, (2, 16)))
    labels["shape"][0, 0] = -100
    losses = model(pixels, labels, mode="loss")
    logits = model.heads["shape"](model.vision(pixels))
    expected = cross_entropy(logits.flatten(0, 1), labels["shape"].flatten(), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(losses["loss_shape"], expected)
    right = (logits.argmax(-1) == labels["shape"]).sum().item()
    assert model(pixels, labels, mode="predict")[0]["shape"] == (right, 31)
