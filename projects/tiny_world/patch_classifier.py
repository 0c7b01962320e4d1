"""Supervised pretraining of a small image encoder on the content of each patch."""

from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmgpt.registry import MODELS


@MODELS.register_module()
class PatchClassifier(BaseModel):
    """Image encoder with one linear head per kind of label.

    Args:
        vision: config of an image encoder.
        heads: number of classes by name, e.g. dict(colour=9, shape=6); class 0 is the background.
        background_weight: weight of class 0 in the loss, since most patches are background.
    """

    def __init__(self, vision: dict, heads: dict[str, int], background_weight: float = 1.0):
        super().__init__()
        self.vision = MODELS.build(vision)
        self.heads = nn.ModuleDict({name: nn.Linear(self.vision.width, count) for name, count in heads.items()})
        self.background_weight = background_weight

    def init_weights(self) -> None:
        """Does nothing: the image encoder was built with its weights."""

    def forward(self, pixels: Tensor, labels: dict[str, Tensor], mode: str = "loss"):
        """Losses of a batch, or counts of its correct predictions.

        Args:
            pixels: (B, 3, H, W).
            labels: (B, P) by name of the head, -100 for a patch without a label.
            mode: 'loss' gives the cross-entropy of each head; 'predict' gives, for each head, the numbers of correct
                and of labelled patches.
        """
        features = self.vision(pixels)
        logits = {name: head(features) for name, head in self.heads.items()}
        if mode == "predict":
            correct = {name: (value.argmax(-1) == labels[name]).sum().item() for name, value in logits.items()}
            return [{name: (correct[name], (labels[name] != -100).sum().item()) for name in logits}]
        losses = {}
        for name, value in logits.items():
            weight = value.new_ones(value.shape[-1])
            weight[0] = self.background_weight
            losses[f"loss_{name}"] = cross_entropy(value.transpose(1, 2), labels[name], weight)
        return losses
