"""Image encoders: pixels (N, 3, H, W) -> patch features (N, P, D).

Each has `width`, the D, and `pretrained`: whether its weights were loaded.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from mmgpt.engine.files import read_settings
from mmgpt.registry import MODELS

from .generation_files import check_no_code
from .weight_files import check_base, check_index, read_weights, state_and_tuning, stored_dtypes


@MODELS.register_module()
class OpenCLIPVision(nn.Module):
    """The image tower of an open_clip model; the text tower is dropped.

    Args:
        path: folder with open_clip_config.json and the weights, the layout that open_clip saves.
        model: instead of `path`, a name open_clip knows ('ViT-L-14') or a JSON file that describes a model.
        pretrained: with `model`, a file of weights or open_clip's tag; None: random weights.
        layer: the block whose output is taken, counted as in open_clip's forward_intermediates; -1 is the last.
        final_norm: patch features after the tower's last norm. The published Flamingo weights expect False.
        quick_gelu: OpenAI's CLIP weights need it; a folder's own description says it.
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

        self.layer, self.final_norm, self.pretrained = layer, final_norm, (path or pretrained) is not None
        file = path or (pretrained if pretrained and Path(pretrained).is_file() else None)
        name, stored = open_clip_name(path, model), stored_dtypes(file) if file else {}
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
            check_base(self.tower, stored, path or pretrained)
        size = self.tower.image_size
        self.width = self._patches(torch.zeros(1, 3, *(size if isinstance(size, tuple) else (size, size)))).shape[-1]

    @torch.no_grad()
    def _patches(self, pixels: Tensor) -> Tensor:
        training = self.training
        features = self.eval()(pixels)
        self.train(training)
        return features

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        out = self.tower.forward_intermediates(
            pixels, indices=[self.layer], normalize_intermediates=self.final_norm, intermediates_only=True
        )
        return out["image_intermediates"][0].flatten(2).transpose(1, 2)


def open_clip_name(path: str | None, model: str | None) -> str:
    """open_clip's own way to name the model; a JSON file is registered under its stem."""
    import open_clip

    if (path is None) == (model is None):
        raise ValueError(f"OpenCLIPVision takes path or model, got path={path!r} and model={model!r}")
    if path is not None:
        if not (Path(path) / "open_clip_config.json").is_file():
            raise FileNotFoundError(f"no open_clip model in {path!r}: open_clip_config.json is missing")
        return f"local-dir:{path}"
    if model.endswith(".json"):
        if "vision_cfg" not in json.loads(Path(model).read_text()):
            raise ValueError(f"{model}: not the description of an open_clip model (no 'vision_cfg')")
        open_clip.add_model_config(model)
        return Path(model).stem
    if model not in open_clip.list_models():
        raise ValueError(f"{model!r} is neither a JSON file nor a name that open_clip knows (open_clip.list_models())")
    return model


@MODELS.register_module()
class HFVision(nn.Module):
    """The image tower of a Hugging Face CLIP or SigLIP model.

    Args:
        path: folder with config.json and weights (of the whole model or of its image tower).
        pretrained: False builds the same tower with random weights.
        final_norm: patch features after the tower's last norm.
    """

    def __init__(self, path: str, pretrained: bool = True, final_norm: bool = False):
        super().__init__()
        from transformers import AutoConfig, AutoModel

        check_no_code(read_settings(Path(path) / "config.json"), Path(path) / "config.json")
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        config = getattr(config, "vision_config", config)
        if pretrained:
            check_index(path)
            stored = stored_dtypes(path)
            loading = dict(output_loading_info=True, trust_remote_code=False)
            model, info = AutoModel.from_pretrained(path, config=config, **loading)
            check_keys(path, {*info["missing_keys"], *info["mismatched_keys"]})
            check_base(model, stored, path)
        else:
            model = AutoModel.from_config(config, trust_remote_code=False)
        self.tower = getattr(model, "vision_model", model)
        self.final_norm, self.pretrained = final_norm, pretrained
        self.width = config.hidden_size
        self.class_tokens = int(hasattr(self.tower.embeddings, "class_embedding"))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        features = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        features = features[:, self.class_tokens :]
        return self.tower.post_layernorm(features) if self.final_norm else features


@MODELS.register_module()
class MMPretrainVision(nn.Module):
    """mmpretrain's VisionTransformer in CLIP's form: a norm before the layers, none of its own at the end.

    Args:
        arch, img_size, patch_size: as in mmpretrain.
        quick_gelu: OpenAI's CLIP weights need it.
        path: file of weights, read with weights-only loading; 'backbone.' in front of names is taken off.
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
            norm_cfg=dict(type="LN", eps=1e-5),  # torch's and CLIP's; mmpretrain's own is 1e-6
            layer_cfgs=dict(act_cfg=dict(type="mmpretrain.QuickGELU")) if quick_gelu else {},
            out_type="featmap",
        )
        self.width, self.pretrained = self.tower.embed_dims, path is not None
        if path is not None:
            self._load(path)

    def _load(self, path: str) -> None:
        state, _ = state_and_tuning(read_weights(path), path)
        state = {name.removeprefix("backbone."): value for name, value in state.items()}
        # The last norm, which CLIP's own embedding needs and Flamingo does not.
        state = {name: value for name, value in state.items() if not name.startswith("ln1.")}
        check_keys(path, *self.tower.load_state_dict(state, strict=False))
        check_base(self.tower, {name: value.dtype for name, value in state.items()}, path)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        return self.tower(pixels)[0].flatten(2).transpose(1, 2)


def look(vision: nn.Module, images: Tensor, takes_features: bool) -> Tensor:
    """Images (n, 3, H, W), frames (n, F, 3, H, W) or cached features (n, P, D) -> features (n, F, P, D).

    Args:
        vision: an image encoder; no gradients are kept where nothing in it is trained.
        takes_features: whether cached features are known to be its own.

    Raises:
        ValueError: features, but they are not known to be its own, or it is trained (with LoRA).
    """
    trained = any(weight.requires_grad for weight in vision.parameters())
    if images.ndim == 3:
        if trained or not takes_features:
            raise ValueError("cached features instead of pixels need a model with feature_cache and a frozen tower")
        return images.unsqueeze(1)
    frames = images if images.ndim == 5 else images.unsqueeze(1)
    dtype = next(vision.parameters()).dtype
    with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
        return vision(frames.flatten(0, 1).to(dtype)).unflatten(0, frames.shape[:2])


def check_keys(path: str, missing: Iterable[str], unexpected: Iterable[str] = ()) -> None:
    """Raises a ValueError naming the file or folder and the tensors unless both lists are empty."""
    for names, what in ((sorted(missing), "lacks"), (sorted(unexpected), "holds, but should not,")):
        if names:
            shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
            raise ValueError(f"{path} does not fit: it {what} {len(names)} tensors: {shown}")
