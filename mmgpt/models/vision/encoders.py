"""Image encoders: pixels (N, 3, H, W) -> patch features (N, P, D).

Each has `width`, the D, and `pretrained`: whether its weights were loaded.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mmgpt.cli.files import read_settings
from mmgpt.models.generation_files import check_no_code
from mmgpt.models.weights.reader import check_base, check_index, read_weights, state_and_tuning, stored_dtypes
from mmgpt.registry import MODELS
from mmgpt.utils.json_file import read_json_object


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
        pixels = torch.zeros(1, 3, *(size if isinstance(size, tuple) else (size, size)))
        self.width = self._probe(pixels, path or model).shape[-1]

    @torch.no_grad()
    def _probe(self, pixels: Tensor, name: str) -> Tensor:
        """The features of some pixels. ValueError when the tower has none with these settings, or no last norm."""
        training, settings = self.training, f"layer={self.layer} and final_norm={self.final_norm}"
        try:
            with _count_calls(self.eval()) as calls:
                features = self(pixels)
            if self.final_norm:
                self.final_norm = False
                with _count_calls(self) as fewer:
                    self(pixels)
                self.final_norm = True
        except Exception as error:
            raise ValueError(f"OpenCLIPVision: {name} gives no patch features with {settings}: {error}") from error
        finally:
            self.train(training)
        if self.final_norm and len(calls) == len(fewer):
            raise ValueError(
                f"OpenCLIPVision: final_norm=True has no effect on {name} ({_kind(self.tower)}): open_clip applies no "
                "last norm to the patches of such a tower; leave it out"
            )
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
        if "vision_cfg" not in read_json_object(model):
            raise ValueError(f"{model}: not the description of an open_clip model (no 'vision_cfg')")
        open_clip.add_model_config(model)
        return Path(model).stem
    if model not in open_clip.list_models():
        raise ValueError(f"{model!r} is neither a JSON file nor a name that open_clip knows (open_clip.list_models())")
    return model


@MODELS.register_module()
class HFVision(nn.Module):
    """The image tower of a Hugging Face model: one vector for each patch, whatever tokens stand before them.

    Vision transformers that keep their patches in order are taken (CLIP, SigLIP, DINOv2 and v3, ViT, DeiT, BEiT, ...);
    their class, distillation and register tokens are dropped. Others are refused.

    Args:
        path: folder with config.json and weights (of the whole model or of its image tower).
        pretrained: False builds the same tower with random weights.
        final_norm: patch features after the tower's last norm.

    Raises:
        ValueError: the tower does not give one vector for each patch, or has no last norm; says what it gives.
    """

    def __init__(self, path: str, pretrained: bool = True, final_norm: bool = False):
        super().__init__()
        from transformers import MODEL_MAPPING, AutoConfig, AutoModel

        check_no_code(read_settings(Path(path) / "config.json"), Path(path) / "config.json")
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        config = getattr(config, "vision_config", config)
        if type(config) not in MODEL_MAPPING:
            raise ValueError(f"HFVision: transformers has no image encoder for {path} ({config.model_type})")
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
        size, patch = (_pair(getattr(config, name, None)) for name in ("image_size", "patch_size"))
        training = self.tower.training
        try:
            self.extra_tokens, self.width = _patch_layout(self.tower.eval(), size, patch)
        except Exception as error:  # whatever the tower says about pixels
            kind = f"{_kind(self.tower)}, {config.model_type}"
            raise ValueError(f"HFVision: {path} ({kind}) does not give one vector for each patch: {error}") from error
        self.tower.train(training)
        self._norm = _last_norm(self.tower, path) if final_norm else None

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        features = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1][:, self.extra_tokens :]
        return self.tower.get_submodule(self._norm)(features) if self._norm else features


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


@torch.no_grad()
def _patch_layout(tower: nn.Module, size: Sequence[int | None], patch: Sequence[int | None]) -> tuple[int, int]:
    """How many tokens of a Hugging Face tower stand before those of its patches, and the width of its features.

    Found by trying: a change of the first patch's pixels has to change one embedding, that of the last patch the last.
    `size` and `patch` are the height and the width of its images and patches.

    Raises:
        ValueError: the tokens are not those of the patches in their order.
    """
    (height, width), (rows, columns) = size, patch
    if None in (height, width, rows, columns):
        raise ValueError("its config.json lacks image_size or patch_size")
    count = (height // rows) * (width // columns)
    pixels = next(tower.parameters()).new_zeros(3, 3, height, width)
    last = height // rows * rows, width // columns * columns
    pixels[1, :, :rows, :columns] = 1
    pixels[2, :, last[0] - rows : last[0], last[1] - columns : last[1]] = 1
    embedded, *_, features = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    extra = embedded.shape[1] - count if embedded.ndim == 3 else -1
    if extra < 0 or features.shape[:2] != (3, extra + count):
        raise ValueError(f"its features are {tuple(features.shape)} for 3 images of {count} patches")
    changed = [(embedded[0] != each).any(-1).nonzero().flatten().tolist() for each in embedded[1:]]
    if changed != [[extra], [extra + count - 1]]:
        raise ValueError("its tokens are not the patches in their order (it masks, merges or mixes them)")
    return extra, features.shape[-1]


def _last_norm(tower: nn.Module, path: str) -> str:
    """The name of the norm that a Hugging Face tower has after its layers."""
    norms = [
        name
        for name, module in tower.named_children()
        if "norm" in name and not name.startswith(("pre", "ln_pre")) and any(True for _ in module.parameters())
    ]
    if len(norms) != 1:
        raise ValueError(f"HFVision: final_norm=True, but {path} ({_kind(tower)}) has no norm after its layers")
    return norms[0]


@contextmanager
def _count_calls(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Context manager that gives the list of the modules with parameters of their own, as often as they are called."""
    calls: list[nn.Module] = []
    own = [each for each in module.modules() if any(True for _ in each.parameters(recurse=False))]
    handles = [each.register_forward_hook(lambda called, *_: calls.append(called)) for each in own]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _pair(size: int | Sequence[int] | None) -> Sequence[int]:
    return size if isinstance(size, (list, tuple)) else (size, size)


def _kind(tower: nn.Module) -> str:
    trunk = getattr(tower, "trunk", None)  # open_clip's wrapper of timm
    return type(tower).__name__ if trunk is None else f"{type(tower).__name__} of {type(trunk).__name__}"


def check_keys(path: str, missing: Iterable[str], unexpected: Iterable[str] = ()) -> None:
    """Raises a ValueError naming the file or folder and the tensors unless both lists are empty."""
    for names, what in ((sorted(missing), "lacks"), (sorted(unexpected), "holds, but should not,")):
        if names:
            shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
            raise ValueError(f"{path} does not fit: it {what} {len(names)} tensors: {shown}")
