"""Image encoders of timm."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import huggingface_hub
import timm
import torch
from timm.data import resolve_data_config
from timm.models import resolve_model_input_args
from torch import Tensor, nn

from mmgpt.models.weights.checks import check_base
from mmgpt.models.weights.reader import read_weights, state_and_tuning
from mmgpt.registry import MODELS
from mmgpt.utils.hub import local_folder
from mmgpt.utils.json_file import read_json_object

from .base import check_keys, probe_feature_map

# Files of weights in a folder, in the order in which timm prefers them.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "*.safetensors", "*.bin", "*.pth", "*.pt")


@MODELS.register_module()
class TimmVision(nn.Module):
    """The image encoder of a timm model: one vector for each position of its grid.

    Transformers, hierarchical and convolutional models work alike: the grid is the feature map of timm's
    forward_intermediates, without class, distillation and register tokens. The head, and the layers after the one that
    is used, are dropped.

    Args:
        path: folder in timm's layout: config.json and weights (model.safetensors); or the model's id on the Hub.
        model: instead of `path`, a model name of timm ('vit_small_patch14_reg4_dinov2.lvd142m'; timm.list_models()).
        pretrained: True: the weights of the folder, or those of the model name, which timm takes from the Hub's cache
            or downloads; with `model` also a file of weights (safetensors or torch.save); False: random weights.
        layer: index of the block (of a transformer) or stage whose output is used, as in forward_intermediates; -1 is
            the last.
        final_norm: features after the last norm.
        image_size: side of the images, or their height and width; default the model's own. Position embeddings of the
            weights are resized by timm.

    Raises:
        FileNotFoundError: the folder, its config.json or the weights are missing.
        ValueError: there is no such model, its weights do not fit or are damaged, or it gives no features with these
            settings.
    """

    def __init__(
        self,
        path: str | None = None,
        model: str | None = None,
        pretrained: bool | str = True,
        layer: int = -1,
        final_norm: bool = False,
        image_size: int | tuple[int, int] | None = None,
    ):
        super().__init__()
        path = path and local_folder(path, weights=bool(pretrained))
        arguments = timm_arguments(path, model, image_size)
        self.layer, self.final_norm, self.pretrained = layer, final_norm, bool(pretrained)
        self.image_size = tuple(data_config(arguments, image_size)["input_size"][1:])

        # 1. The network, with its weights.
        if path and isinstance(pretrained, str):
            raise ValueError(f"TimmVision: path={path!r} has its weights, pretrained={pretrained!r} goes with model")
        file = pretrained if isinstance(pretrained, str) else None
        if path and pretrained:
            files = [str(file) for pattern in WEIGHT_FILES for file in sorted(Path(path).glob(pattern))]
            if not files:
                raise FileNotFoundError(f"no weights in {path!r}: model.safetensors is missing")
            file = files[0]
        try:
            if file is not None:
                self.tower = _with_weights(arguments, file)
            else:
                self.tower = timm.create_model(**arguments, pretrained=self.pretrained)
                check_base(self.tower, {}, path or model)
        except (TypeError, RuntimeError, AssertionError) as error:
            raise ValueError(f"TimmVision: {path or model} cannot be built: {error}") from error
        except huggingface_hub.errors.LocalEntryNotFoundError as error:
            hub_id = arguments["pretrained_cfg"]["hf_hub_id"]
            raise FileNotFoundError(
                f"TimmVision: the weights of {model} are not in the Hub's cache, and the Hub cannot be reached: run "
                f"`hf download {hub_id}` with a network, or name a file: pretrained=FILE"
            ) from error
        if not hasattr(self.tower, "forward_intermediates"):
            raise ValueError(f"TimmVision: {path or model} has no forward_intermediates, and so no patch features")

        # 2. Its feature map, and the layers that make it.
        _, self.width, *grid = probe_feature_map(self, self.tower, path or model)
        self.grid, self.prefix_tokens = tuple(grid), getattr(self.tower, "num_prefix_tokens", 0)
        [self.layer] = self.tower.prune_intermediate_layers([layer], prune_norm=not final_norm, prune_head=True)

    def feature_map(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D, rows, columns)."""
        # Convolutions are faster so, by half on a CPU; others do not mind.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        [features] = self.tower.forward_intermediates(
            pixels, indices=[self.layer], norm=self.final_norm, intermediates_only=True, output_fmt="NCHW"
        )
        return features

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, P, D)."""
        return self.feature_map(pixels).flatten(2).transpose(1, 2)

    @staticmethod
    def read_preprocessing(config: Mapping) -> dict:
        """timm's data config of the model, for images of the encoder's `image_size` where it is given."""
        image_size = config.get("image_size")
        path = config.get("path") and local_folder(config["path"], weights=False)
        arguments = timm_arguments(path, config.get("model"), image_size)
        return {"library": "timm", **data_config(arguments, image_size)}


def data_config(arguments: Mapping, image_size: int | tuple[int, int] | None) -> dict:
    """timm's data config for timm.create_model's arguments, with the size of the images in place of its own."""
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    size = dict(input_size=(3, *sides)) if sides else {}
    return resolve_data_config(size, arguments["pretrained_cfg"])


def timm_arguments(path: str | None, model: str | None, image_size: int | tuple[int, int] | None) -> dict:
    """timm.create_model's arguments for a folder or a model name, with timm's description of its weights.

    Raises:
        FileNotFoundError, ValueError: see `TimmVision`.
    """
    if (path is None) == (model is None):
        raise ValueError(f"TimmVision takes path or model, got path={path!r} and model={model!r}")
    if path is not None:
        file = Path(path) / "config.json"
        if not file.is_file():
            raise FileNotFoundError(f"no timm model in {path!r}: config.json is missing")
        if not timm.is_model(str(read_json_object(file).get("architecture"))):
            raise ValueError(f"{file} names no architecture of timm; HFVision reads the folders of transformers")
    elif not timm.is_model(model):
        near = get_close_matches(model, [*timm.list_models(), *timm.list_pretrained()], n=3)
        raise ValueError(f"{model!r} is not a model name of timm; near ones: {', '.join(near) or 'none'}")
    try:
        return resolve_model_input_args(f"local-dir:{path}" if path else model, dict(img_size=image_size))
    except RuntimeError as error:  # an unknown tag
        raise ValueError(f"TimmVision: {path or model}: {error}") from error


def _with_weights(arguments: Mapping, file: str) -> nn.Module:
    """The network with the weights of a file; those of its classification head may be missing or of other classes.

    timm renames and resizes tensors of other layouts that it knows, then loads them strictly.
    """
    state, _ = state_and_tuning(read_weights(file), file)

    def create(tensors: Mapping[str, Tensor]) -> nn.Module:
        source = dict(source="", state_dict=dict(tensors), custom_load=False)
        network = timm.create_model(**arguments, pretrained=True, pretrained_cfg_overlay=source)
        check_base(network, {name: value.dtype for name, value in tensors.items()}, file)
        return network

    try:
        return create(state)
    except RuntimeError:  # names or shapes differ
        network = timm.create_model(**arguments)
    heads = network.pretrained_cfg["classifier"] or ()
    heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    expected = network.state_dict()
    head = {name: value for name, value in expected.items() if name.startswith(heads)}
    body = {name: value for name, value in state.items() if not name.startswith(heads)}
    check_keys(file, expected.keys() - body.keys() - head.keys(), body.keys() - expected.keys())
    return create(body | head)
