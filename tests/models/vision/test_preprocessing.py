"""PrepareImages with the preprocessing of an image encoder against the transforms of its library."""

import json
import pickle

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from transformers import (
    AutoImageProcessor,
    BeitImageProcessor,
    BitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    DINOv3ViTImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)

from mmgpt.apis.export import preprocessor_config
from mmgpt.datasets.feature_cache import FeatureCache, create_cache
from mmgpt.models.vision.preprocessing import image_preprocessing, with_settings
from mmgpt.registry import TRANSFORMS

IMAGES = [
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for width, height in ((640, 427), (1000, 667), (227, 224))
]

RESNET = dict(type="TimmVision", model="resnet18")


def encoder(kind, **arguments):
    return dict(preprocessing=dict(type=kind, **arguments))


def prepare(vision, **values):
    return TRANSFORMS.build(dict(type="PrepareImages", preprocessing=vision, **values))


def assert_equal_pixels(step, transform):
    """Also after the transform went to another process, as those of a DataLoader are sent there."""
    for each in (step, pickle.loads(pickle.dumps(step))):
        ours = each({"pil": IMAGES})["pixels"]
        torch.testing.assert_close(ours, torch.stack([transform(image) for image in IMAGES]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(crop_pct=0.95, interpolation="bilinear", mean=[0.5] * 3, std=[0.25] * 3),
        dict(input_size=[3, 256, 192], crop_pct=1.0),
        dict(crop_mode="squash", crop_pct=0.9),
        dict(crop_mode="border", crop_pct=1.0, interpolation="lanczos"),
    ],
)
def test_timm(settings, tmp_path):
    description = dict(architecture="resnet18", pretrained_cfg=dict(dict(input_size=[3, 224, 224]), **settings))
    (tmp_path / "config.json").write_text(json.dumps(description))
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=False)
    theirs = resolve_model_data_config(network)
    vision = dict(type="TimmVision", path=str(tmp_path))
    assert_equal_pixels(prepare(vision), create_transform(**theirs))
    larger = create_transform(**resolve_model_data_config(network, dict(input_size=(3, 96, 96))))
    assert_equal_pixels(prepare(dict(vision, image_size=96)), larger)


@pytest.mark.parametrize(
    "settings",
    [
        dict(mean=[0.48, 0.46, 0.41], std=[0.27, 0.26, 0.28]),
        dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic", resize_mode="squash"),
        dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear", resize_mode="squash"),
        dict(mean=[0.5] * 3, std=[0.25] * 3, resize_mode="longest", fill_color=9),
    ],
)
def test_open_clip(settings, tmp_path):
    text = dict(context_length=4, vocab_size=8, width=16, heads=1, layers=1)
    vision = dict(image_size=64, layers=1, width=32, head_width=16, patch_size=16)
    description = dict(model_cfg=dict(embed_dim=16, vision_cfg=vision, text_cfg=text), preprocess_cfg=settings)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(description))
    clip = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    theirs = image_transform_v2(PreprocessCfg(**clip.visual.preprocess_cfg), is_train=False)
    assert_equal_pixels(prepare(dict(type="OpenCLIPVision", path=str(tmp_path), layer=0)), theirs)


@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessor(),
        CLIPImageProcessor(size=dict(shortest_edge=96), crop_size=dict(height=64, width=64), resample=2),
        SiglipImageProcessor(),
        BitImageProcessor(size=dict(shortest_edge=256), crop_size=dict(height=224, width=224)),  # DINOv2
        DINOv3ViTImageProcessor(),
        ViTImageProcessor(),
        BeitImageProcessor(size=dict(height=64, width=64)),
        ConvNextImageProcessor(size=dict(shortest_edge=224), crop_pct=0.875),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_transformers(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)
    step = prepare(dict(type="HFVision", path=str(tmp_path), final_norm=True))
    assert_equal_pixels(step, lambda image: theirs(image, return_tensors="pt")["pixel_values"][0])
    # What an exported folder gets, other programs read as the same.
    settings = with_settings(dict(preprocessing=dict(type="HFVision", path=str(tmp_path))))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor_config(settings)))
    assert AutoImageProcessor.from_pretrained(tmp_path).to_dict() == theirs.to_dict()


def test_the_librarys_own_crop_decides():
    """Where the margin is 3 modulo 4 pixels, CLIPImageProcessor's crop begins a pixel beside torchvision's."""
    clip = {"library": "transformers", **CLIPImageProcessor().to_dict()}
    timm_clip = image_preprocessing(dict(type="TimmVision", model="vit_base_patch16_clip_224.openai"))
    timm_clip["crop_pct"] = 1.0
    ours, theirs = (prepare(settings)({"pil": IMAGES})["pixels"][2] for settings in (clip, timm_clip))
    assert (ours - theirs).abs().max() > 1
    assert (ours[..., 1:] - theirs[..., :-1]).abs().max() < 0.1


def test_twins_of_two_libraries_disagree():
    """Why nobody should copy mean and std by hand."""
    theirs = image_preprocessing(dict(type="OpenCLIPVision", model="PE-Core-T-16-384", pretrained="meta"))
    assert (theirs["interpolation"], theirs["resize_mode"], theirs["size"]) == ("bilinear", "squash", 384)
    twin = image_preprocessing(dict(type="TimmVision", model="vit_pe_core_tiny_patch16_384.fb"))
    assert (twin["interpolation"], twin["crop_mode"], twin["input_size"]) == ("bicubic", "center", (3, 384, 384))
    lite = [
        image_preprocessing(dict(type="TimmVision", model=name))["mean"]
        for name in ("tf_efficientnet_lite0.in1k", "efficientnet_lite0.ra_in1k")
    ]
    assert lite == [(0.5, 0.5, 0.5), (0.485, 0.456, 0.406)]


@pytest.mark.parametrize("kind", ["TimmVision", "HFVision"])
def test_explicit_values_override_the_encoders(kind, tmp_path):
    CLIPImageProcessor().save_pretrained(tmp_path)
    vision = dict(type=kind, path=str(tmp_path)) if kind == "HFVision" else RESNET
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    step = prepare(vision, mean=mean, std=std, interpolation="nearest")
    pixels = step({"pil": IMAGES})["pixels"]
    levels = step.restore(pixels)
    # Pixels of the nearest neighbor are levels of the image, unmixed.
    exact = (pixels * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)) * 255
    assert (exact - levels.permute(0, 3, 1, 2)).abs().max() < 1e-3
    assert (prepare(vision)({"pil": IMAGES})["pixels"] - pixels).abs().max() > 0.1


def test_pixels_are_restored(tmp_path):
    image = Image.new("RGB", (224, 224), (10, 100, 200))
    CLIPImageProcessor(do_normalize=False).save_pretrained(tmp_path)
    for vision in (RESNET, dict(type="HFVision", path=str(tmp_path))):
        step = prepare(vision)
        assert step.restore(step({"pil": [image]})["pixels"]).flatten(0, 2).unique(dim=0).tolist() == [[10, 100, 200]]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (dict(size=8), ValueError, "size=8 beside preprocessing, .*_delete_=True"),
        (dict(preprocessing=None), ValueError, "PrepareImages needs size, mean, std, or preprocessing"),
        (dict(preprocessing=dict(library="torch")), ValueError, "unknown library 'torch'; choose timm, open_clip"),
        (dict(preprocessing=dict(library="timm", size=3)), ValueError, "timm does not take these settings: .*'size'"),
        (dict(preprocessing=dict(library="transformers")), ValueError, "transformers has no image processor None"),
        (encoder("MMPretrainVision"), ValueError, "MMPretrainVision has no read_preprocessing"),
        (encoder("HFVision", path="absent"), FileNotFoundError, "preprocessor_config.json is missing"),
        (encoder("OpenCLIPVision", model="RN50"), ValueError, "open_clip knows no preprocessing of RN50"),
        (encoder("OpenCLIPVision", path="tiny"), ValueError, "open_clip knows no preprocessing of .*clip"),
    ],
)
def test_what_no_library_says_is_refused(values, error, words, tiny_clip):
    if (values.get("preprocessing") or {}).get("path") == "tiny":  # its preprocess_cfg is empty
        values = encoder("OpenCLIPVision", path=tiny_clip)
    with pytest.raises(error, match=words):
        TRANSFORMS.build({"type": "PrepareImages", "preprocessing": RESNET, **values})


def test_a_feature_cache_knows_the_settings_not_the_path(tmp_path):
    """A moved image encoder is the same one, another preprocessing is not."""

    def steps(folder):
        return [dict(type="LoadImages"), dict(type="PrepareImages", **encoder("HFVision", path=str(folder)))]

    for name, resample in (("a", 3), ("b", 3), ("c", 2)):
        CLIPImageProcessor(resample=resample).save_pretrained(tmp_path / name)
    create_cache(tmp_path / "cache", steps(tmp_path / "a"), "float16")
    FeatureCache(tmp_path / "cache", steps(tmp_path / "b"))
    with pytest.raises(ValueError, match="images prepared by .*'resample': 3.*'resample': 2"):
        FeatureCache(tmp_path / "cache", steps(tmp_path / "c"))


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (dict(crop_pct=0.875, crop_mode="center"), dict(shortest_edge=256)),
        (dict(crop_pct=1.0, crop_mode="squash"), dict(height=224, width=224)),
        (dict(crop_pct=1.0, crop_mode="border"), None),
    ],
)
def test_the_image_processor_of_an_exported_folder(settings, size):
    settings = {"library": "timm", "input_size": (3, 224, 224), "mean": [0.5] * 3, "std": [0.5] * 3, **settings}
    content = preprocessor_config(dict(preprocessing=dict(settings, interpolation="bilinear"), std=[0.25] * 3))
    if size is None:
        assert content is None
        return
    assert (content["size"], content["resample"], content["image_std"]) == (size, 2, [0.25] * 3)
    processor = CLIPImageProcessor(**content)
    image = IMAGES[0].crop((0, 0, 500, 375))
    ours = prepare(dict(settings, interpolation="bilinear"), std=[0.25] * 3)({"pil": [image]})["pixels"]
    # A level of 255, by which Pillow and torchvision differ.
    assert (processor(image, return_tensors="pt")["pixel_values"] - ours).abs().max() < 1.01 / 255 / 0.25
