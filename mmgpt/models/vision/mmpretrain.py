"""Image encoders of mmpretrain."""

from torch import Tensor, nn

from mmgpt.models.weights.checks import check_base
from mmgpt.models.weights.reader import read_weights, state_and_tuning
from mmgpt.registry import MODELS

from .base import check_keys


@MODELS.register_module()
class MMPretrainVision(nn.Module):
    """mmpretrain's VisionTransformer in CLIP's form: with a norm before its layers and none after them.

    Args:
        arch, img_size, patch_size: as in mmpretrain.
        quick_gelu: OpenAI's CLIP weights need it.
        path: file of weights, read with weights-only loading; 'backbone.' in front of names is taken off.

    Raises:
        ValueError: the tensors of the file are not exactly those of the image encoder.
    """

    def __init__(
        self,
        arch: str | dict,
        img_size: int = 224,
        patch_size: int = 14,
        quick_gelu: bool = False,
        path: str | None = None,
    ):
        super().__init__()
        # With pycocotools installed, mmpretrain imports multimodal models that today's transformers break.
        from mmpretrain.utils import dependency

        dependency.WITH_MULTIMODAL = False
        from mmpretrain.models import VisionTransformer

        self.tower = VisionTransformer(
            arch=dict(arch) if isinstance(arch, dict) else arch,
            img_size=img_size,
            patch_size=patch_size,
            pre_norm=True,
            final_norm=False,
            norm_cfg=dict(type="LN", eps=1e-5),  # as in torch and CLIP; mmpretrain's default is 1e-6
            layer_cfgs=dict(act_cfg=dict(type="mmpretrain.QuickGELU")) if quick_gelu else {},
            out_type="featmap",
        )
        self.width, self.pretrained = self.tower.embed_dims, path is not None
        self.image_size, self.grid = self.tower.img_size, tuple(self.tower.patch_resolution)
        self.prefix_tokens = self.tower.num_extra_tokens
        if path is not None:
            state, _ = state_and_tuning(read_weights(path), path)
            state = {name.removeprefix("backbone."): value for name, value in state.items()}
            # CLIP's image embedding needs the last norm; Flamingo does not.
            state = {name: value for name, value in state.items() if not name.startswith("ln1.")}
            check_keys(path, *self.tower.load_state_dict(state, strict=False))
            check_base(self.tower, {name: value.dtype for name, value in state.items()}, path)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        return self.tower(pixels)[0].flatten(2).transpose(1, 2)
