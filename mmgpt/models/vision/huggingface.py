"""Image encoders of transformers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoModel

from mmgpt.cli.files import read_settings
from mmgpt.models.generation_files import check_no_code
from mmgpt.models.weights.checks import check_base, check_index, stored_dtypes
from mmgpt.registry import MODELS
from mmgpt.utils.hub import local_folder

from .base import check_keys


@MODELS.register_module()
class HFVision(nn.Module):
    """The image encoder of a Hugging Face model: one vector for each patch, or for each position of a feature map.

    Vision transformers that keep their patches in order work (CLIP, SigLIP, DINOv2 and v3, ViT, DeiT, BEiT, ...); their
    class, distillation and register tokens are dropped. So do convolutional encoders (ConvNeXt, DINOv3's ConvNeXt),
    whose last feature map is used. Others are refused.

    Args:
        path: folder with config.json and weights (of the whole model or of its image encoder), or the model's id on the
            Hub.
        pretrained: False builds the same image encoder with random weights.
        final_norm: patch features after the last norm.

    Raises:
        ValueError: the image encoder does not give one vector for each patch, or has no last norm.
    """

    def __init__(self, path: str, pretrained: bool = True, final_norm: bool = False):
        super().__init__()
        # 1. The model, or its image encoder alone, with its weights.
        path = local_folder(path, weights=pretrained)
        file = Path(path) / "config.json"
        check_no_code(read_settings(file), file)
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        config = getattr(config, "vision_config", config)
        if config.model_type == "timm_wrapper":
            raise ValueError(f"HFVision: {path} ({config.model_type}) is a model of timm: TimmVision reads it")
        if type(config) not in MODEL_MAPPING:
            raise ValueError(f"HFVision: transformers has no image encoder for {path} ({config.model_type})")
        if pretrained:
            check_index(path)
            dtypes = stored_dtypes(path)
            loading = dict(output_loading_info=True, trust_remote_code=False)
            model, info = AutoModel.from_pretrained(path, config=config, **loading)
            check_keys(path, {*info["missing_keys"], *info["mismatched_keys"]})
            check_base(model, dtypes, path)
        else:
            model = AutoModel.from_config(config, trust_remote_code=False)
        self.tower = getattr(model, "vision_model", model)
        self.final_norm, self.pretrained = final_norm, pretrained

        # 2. The tokens of the patches, and their width.
        sizes = (getattr(config, name, None) for name in ("image_size", "patch_size"))
        sizes = [size if isinstance(size, (list, tuple)) else (size, size) for size in sizes]
        training, kind = self.tower.training, type(self.tower).__name__
        self.image_size = tuple(sizes[0])
        try:
            self.prefix_tokens, self.grid, self.width = _patch_layout(self.tower.eval(), *sizes)
        except Exception as error:  # each architecture raises its own kind of error for pixels that it does not take
            raise ValueError(
                f"HFVision: {path} ({kind}, {config.model_type}) does not give one vector for each patch: {error}"
            ) from error
        self.tower.train(training)

        # 3. The norm after the layers, whose name differs by architecture.
        self._norm = None
        if final_norm:
            norms = [
                name
                for name, module in self.tower.named_children()
                if "norm" in name and not name.startswith(("pre", "ln_pre")) and any(True for _ in module.parameters())
            ]
            if len(norms) != 1:
                raise ValueError(f"HFVision: final_norm=True, but {path} ({kind}) has no norm after its layers")
            self._norm = norms[0]

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        features = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        features = features[:, self.prefix_tokens :] if features.ndim == 3 else features.flatten(2).transpose(1, 2)
        return self.tower.get_submodule(self._norm)(features) if self._norm else features

    @staticmethod
    def read_preprocessing(config: Mapping) -> dict:
        """Settings of transformers' image processor, from the folder's preprocessor_config.json."""
        folder = Path(local_folder(config["path"], weights=False))
        files = [folder / name for name in ("preprocessor_config.json", "processor_config.json")]
        if not any(file.is_file() for file in files):
            raise FileNotFoundError(f"{files[0]} is missing: it says how images are prepared for the image encoder")
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        return {"library": "transformers", **json.loads(processor.to_json_string())}


@torch.no_grad()
def _patch_layout(
    encoder: nn.Module, image_size: Sequence[int | None], patch_size: Sequence[int | None]
) -> tuple[int, tuple[int, int], int]:
    """Number of tokens before those of the patches, the grid of the patches (rows, columns), and their width.

    The layout of tokens is probed: a change of the first patch's pixels has to change one embedding, and a change of
    the last patch's pixels the last embedding. A feature map (N, D, rows, columns) is its own grid. Both sizes are
    height and width.

    Raises:
        ValueError: the tokens are not those of the patches in their order.
    """
    (height, width), (patch_height, patch_width) = image_size, patch_size
    if None in (height, width):
        raise ValueError(
            "its config.json lacks image_size (NaFlex models, which take images of any size, are not supported: "
            "use the one of a fixed resolution)"
        )
    pixels = next(encoder.parameters()).new_zeros(3, 3, height, width)
    rows, columns = height // (patch_height or height), width // (patch_width or width)
    if patch_height and patch_width:
        bottom, right = rows * patch_height, columns * patch_width
        pixels[1, :, :patch_height, :patch_width] = 1
        pixels[2, :, bottom - patch_height : bottom, right - patch_width : right] = 1
    embeddings, *_, features = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
    if features.ndim == 4 and features.shape[1] == getattr(encoder.config, "hidden_sizes", [None])[-1]:
        return 0, tuple(features.shape[2:]), features.shape[1]
    count = rows * columns
    extra = embeddings.shape[1] - count if embeddings.ndim == 3 else -1
    if extra < 0 or features.shape[:2] != (3, extra + count):
        raise ValueError(f"its features are {tuple(features.shape)} for 3 images of {count} patches")
    differences = [(embeddings[0] != row).any(-1).nonzero().flatten().tolist() for row in embeddings[1:]]
    if differences != [[extra], [extra + count - 1]]:
        raise ValueError("its tokens are not the patches in their order (it masks, merges or mixes them)")
    return extra, (rows, columns), features.shape[-1]
