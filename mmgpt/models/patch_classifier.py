"""Supervised pretraining of a small image encoder: what is in each patch. Used by the tiny experiment's base."""

from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmgpt.registry import MODELS


@MODELS.register_module()
class PatchClassifier(BaseModel):
    """An image encoder with one linear head per kind of label.

    Args:
        vision: config of an image encoder.
        heads: number of classes by name, e.g. dict(colour=9, shape=6); class 0 is the background.
        background_weight: weight of class 0 in the loss, to make up for most patches being empty.
    """

    def __init__(self, vision: dict, heads: dict[str, int], background_weight: float = 1.0):
        super().__init__()
        self.vision = MODELS.build(vision)
        self.heads = nn.ModuleDict({name: nn.Linear(self.vision.width, count) for name, count in heads.items()})
        self.background_weight = background_weight

    def init_weights(self) -> None:
        """Nothing: the encoder was built with its weights."""

    def forward(self, pixels: Tensor, labels: dict[str, Tensor], mode: str = "loss"):
        """pixels (B, 3, H, W), labels by name (B, P), -100 where unknown.

        mode 'loss' -> the cross-entropy of each head; 'predict' -> per head the right and the counted patches.
        """
        features = self.vision(pixels)
        logits = {name: head(features) for name, head in self.heads.items()}
        if mode == "loss":
            return {f"loss_{name}": self._loss(value, labels[name]) for name, value in logits.items()}
        return [
            {k: ((v.argmax(-1) == labels[k]).sum().item(), (labels[k] != -100).sum().item()) for k, v in logits.items()}
        ]

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = logits.new_ones(logits.shape[-1])
        weight[0] = self.background_weight
        return cross_entropy(logits.transpose(1, 2), labels, weight)
