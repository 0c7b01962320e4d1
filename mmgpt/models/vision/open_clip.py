"""Image encoders of open_clip, timm's among them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mmgpt.models.weights.checks import check_base, stored_dtypes
from mmgpt.registry import MODELS
from mmgpt.utils.hub import local_folder
from mmgpt.utils.json_file import read_json_object


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
        pixels = torch.zeros(1, 3, *(size if isinstance(size, tuple) else (size, size)))
        self.width = self._probe(pixels, path or model).shape[-1]

    @torch.no_grad()
    def _probe(self, pixels: Tensor, name: str) -> Tensor:
        """The features (1, P, D) of pixels (1, 3, H, W). ValueError when there are none, or no last norm."""
        training, settings = self.training, f"layer={self.layer} and final_norm={self.final_norm}"
        try:
            with _count_calls(self.eval()) as calls:
                features = self(pixels)
            if self.final_norm:
                self.final_norm = False
                with _count_calls(self) as calls_without_norm:
                    self(pixels)
                self.final_norm = True
        except Exception as error:
            raise ValueError(f"OpenCLIPVision: {name} gives no patch features with {settings}: {error}") from error
        finally:
            self.train(training)
        if self.final_norm and len(calls) == len(calls_without_norm):
            trunk = getattr(self.tower, "trunk", None)  # open_clip's wrapper of timm has one
            kind = type(self.tower).__name__ + ("" if trunk is None else f" of {type(trunk).__name__}")
            raise ValueError(
                f"OpenCLIPVision: final_norm=True has no effect on {name} ({kind}): open_clip applies no last norm to "
                "the patches of such an image encoder; leave it out"
            )
        return features

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        out = self.tower.forward_intermediates(
            pixels, indices=[self.layer], normalize_intermediates=self.final_norm, intermediates_only=True
        )
        return out["image_intermediates"][0].flatten(2).transpose(1, 2)


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


@contextmanager
def _count_calls(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Context manager that returns a list, to which each module with parameters is appended at each of its calls."""
    calls: list[nn.Module] = []
    layers = [layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))]
    handles = [layer.register_forward_hook(lambda layer, *_: calls.append(layer)) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
