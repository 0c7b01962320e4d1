"""Preprocessing of images as the library of an image encoder does it.

Settings are a dict: `library` ('timm', 'open_clip' or 'transformers'), and the library's own settings under its own
names, from which the library itself makes the transform.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from PIL import Image
from torch import Tensor

from mmgpt.registry import MODELS

# Pillow's numbers of filters, which transformers has in its settings.
PIL_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def image_preprocessing(vision: Mapping) -> dict:
    """Preprocessing settings of an image encoder, which is not built: only its description is read.

    Args:
        vision: the encoder's config. Its class has a static method `read_preprocessing(config)` that returns settings.

    Raises:
        ValueError: the class has no such method, or its library does not know the preprocessing of these weights.
        FileNotFoundError: the description is missing.
    """
    encoder = MODELS.get(vision["type"]) if isinstance(vision["type"], str) else vision["type"]
    if encoder is None or not hasattr(encoder, "read_preprocessing"):
        raise ValueError(
            f"{vision['type']} has no read_preprocessing: give PrepareImages the size, mean and std of its images"
        )
    return encoder.read_preprocessing({key: value for key, value in vision.items() if key != "type"})


def with_settings(config: object) -> object:
    """Config of transforms with settings in place of each image encoder that is named as `preprocessing`."""
    if isinstance(config, Mapping):
        return {
            key: image_preprocessing(value)
            if key == "preprocessing" and isinstance(value, Mapping) and "type" in value
            else with_settings(value)
            for key, value in config.items()
        }
    return [with_settings(item) for item in config] if isinstance(config, (list, tuple)) else config


def changed_settings(
    settings: Mapping, mean: Sequence[float] | None, std: Sequence[float] | None, interpolation: str | None
) -> dict:
    """Settings with another mean, standard deviation or interpolation where they are not None."""
    names, resample = ("mean", "std", "interpolation"), interpolation
    if settings["library"] == "transformers":
        names, resample = ("image_mean", "image_std", "resample"), PIL_FILTERS.get(interpolation)
    values = dict(zip(names, (mean, std, resample), strict=True))
    return {**settings, **{name: value for name, value in values.items() if value is not None}}


def image_transform(settings: Mapping) -> Callable[[Image.Image], Tensor]:
    """The library's transform, from an RGB image to pixels (3, H, W).

    Raises:
        ValueError: the library is unknown, or does not know a setting.
    """
    library, settings = settings.get("library"), {key: settings[key] for key in settings if key != "library"}
    try:
        if library == "timm":
            from timm.data import create_transform

            return create_transform(**settings)
        if library == "open_clip":
            from open_clip.transform import PreprocessCfg, image_transform_v2

            return image_transform_v2(PreprocessCfg(**settings), is_train=False)
    except TypeError as error:
        raise ValueError(f"preprocessing: {library} does not take these settings: {error}") from error
    if library != "transformers":
        raise ValueError(f"preprocessing: unknown library {library!r}; choose timm, open_clip or transformers")
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    name = settings.get("image_processor_type")
    processor = get_image_processor_class_from_name(name) if isinstance(name, str) else None
    if processor is None:
        raise ValueError(f"preprocessing: transformers has no image processor {name!r}")
    return partial(_process, processor.from_dict(settings))


def normalization(settings: Mapping) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, of red, green and blue from 0 to 1, by which settings normalize."""
    if settings["library"] != "transformers":
        return list(settings["mean"]), list(settings["std"])
    if not settings.get("do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return list(settings["image_mean"]), list(settings["image_std"])


def _process(processor: Callable, image: Image.Image) -> Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]
