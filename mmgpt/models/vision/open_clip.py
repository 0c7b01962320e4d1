"""Image encoders of open_clip, timm's among them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmgpt.models.weights.checks import check_base, stored_dtypes
from mmgpt.registry import MODELS
from mmgpt.utils.hub import local_folder
from mmgpt.utils.json_file import read_json_object

from .base import probe_feature_map


@MODELS.register_module()
class OpenCLIPVision(nn.Module):
    """The image encoder of an open_clip model, whose text encoder is dropped.

    Args:
        path: folder with open_clip_config.json and the weights, the layout that open_clip saves, or the model's id on
            the Hub.
        model: instead of `path`, a model name of open_clip ('ViT-L-14') or a JSON file that describes a model.
        pretrained: with `model`, a file of weights or open_clip's tag; None: random weights.
        layer: index of the block whose output is used, as in open_clip's forward_intermediates; -1 is the last.
        final_norm: patch features after the last norm. The published Flamingo weights expect False.
        quick_gelu: OpenAI's CLIP weights need it; in a folder, open_clip_config.json sets it.

    Raises:
        FileNotFoundError: the folder has no open_clip_config.json.
        ValueError: there is no such model, its weights are damaged, or it gives no patch features with these settings.
    """

    def __init__(
        self,
        path: str | None = None,
        model: str | None = None,
        pretrained: str | None = None,
        layer: int = -1,
        final_norm: bool = False,
        quick_gelu: bool = False,
    ):
        super().__init__()
        import open_clip

        path = path and local_folder(path)
        self.layer, self.final_norm, self.pretrained = layer, final_norm, (path or pretrained) is not None
        file = path or (pretrained if pretrained and Path(pretrained).is_file() else None)
        name, dtypes = open_clip_name(path, model), stored_dtypes(file) if file else {}
        clip = open_clip.create_model(
            name,
            pretrained=pretrained,
            device=torch.get_default_device(),
            force_quick_gelu=quick_gelu,
            pretrained_text=False,
            require_pretrained=self.pretrained,
        )
        self.tower = clip.visual
        if self.pretrained:
            check_base(self.tower, dtypes, path or pretrained)
        size = self.tower.image_size
        self.image_size = (size, size) if isinstance(size, int) else tuple(size)
        trunk = getattr(self.tower, "trunk", self.tower)  # open_clip's wrapper of timm has one
        _, self.width, *grid = probe_feature_map(self, trunk, path or model)
        self.grid = tuple(grid)
        self.prefix_tokens = getattr(trunk, "num_prefix_tokens", int(hasattr(trunk, "class_embedding")))

    def feature_map(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D, rows, columns)."""
        resnet = type(self.tower).__name__ == "ModifiedResNet"
        if resnet:  # Its convolutions are a fifth faster so on a CPU; those of a transformer are not.
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        out = self.tower.forward_intermediates(
            pixels,
            indices=[self.layer],
            # Layers behind `layer` would be computed in vain. A ModifiedResNet leaves them out when it is not asked to
            # (open_clip 3.3).
            stop_early=not resnet,
            normalize_intermediates=self.final_norm,
            intermediates_only=True,
        )
        return out["image_intermediates"][0]

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        return self.feature_map(pixels).flatten(2).transpose(1, 2)

    @staticmethod
    def read_preprocessing(config: Mapping) -> dict:
        """open_clip's preprocessing of a folder's open_clip_config.json, or of the tag of its published weights."""
        import open_clip
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        path, model, tag = (config.get(key) for key in ("path", "model", "pretrained"))
        path = path and local_folder(path, weights=False)
        name = open_clip_name(path, model)
        if path is not None:
            description = read_json_object(Path(path) / "open_clip_config.json")
            preprocessing, vision = description.get("preprocess_cfg"), description["model_cfg"]["vision_cfg"]
        else:
            preprocessing = open_clip.get_pretrained_cfg(name, tag) if tag else None
            vision = open_clip.get_model_config(name)["vision_cfg"]
        if not preprocessing or not {"mean", "std"} <= preprocessing.keys():
            raise ValueError(
                f"OpenCLIPVision: open_clip knows no preprocessing of {path or model} with pretrained={tag!r} (of a "
                "folder, its preprocess_cfg has mean and std): give PrepareImages its size, mean and std"
            )
        # The model decides the size, as in open_clip.create_model.
        settings = merge_preprocess_dict(PreprocessCfg(), preprocessing)
        return {"library": "open_clip", **settings, "size": vision.get("image_size", 224)}


def open_clip_name(path: str | None, model: str | None) -> str:
    """The name that open_clip.create_model takes for a folder or a model; a JSON file is registered under its stem.

    Raises:
        FileNotFoundError, ValueError: see `OpenCLIPVision`.
    """
    import open_clip

    if (path is None) == (model is None):
        raise ValueError(f"OpenCLIPVision takes path or model, got path={path!r} and model={model!r}")
    if path is not None:
        if not (Path(path) / "open_clip_config.json").is_file():
            raise FileNotFoundError(f"no open_clip model in {path!r}: open_clip_config.json is missing")
        return f"local-dir:{path}"
    if model.endswith(".json"):
        if "vision_cfg" not in read_json_object(model):
            raise ValueError(f"{model}: not the description of an open_clip model (no 'vision_cfg')")
        open_clip.add_model_config(model)
        return Path(model).stem
    if model not in open_clip.list_models():
        raise ValueError(f"{model!r} is neither a JSON file nor a name that open_clip knows (open_clip.list_models())")
    return model
