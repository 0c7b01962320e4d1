"""Image encoders: pixels (N, 3, H, W) to patch features (N, P, D), one library a file.

Each is a module with `width`, the D, and `pretrained`: whether its weights were loaded. Those of this package also have
`image_size`, the height and width of its images; `grid`, the rows and columns of the P positions of such an image; and
`prefix_tokens`, the number of class, distillation and register tokens that are dropped. `image_preprocessing(config)`
reads, without building an encoder, how its library prepares images.
"""

from mmgpt.utils.lazy_names import lazy_names

MODULES = {
    "HFVision": "huggingface",
    "MMPretrainVision": "mmpretrain",
    "OpenCLIPVision": "open_clip",
    "TimmVision": "timm",
}
__all__ = list(MODULES)
# The data needs some modules of this package, and no encoder.
__getattr__ = lazy_names(__name__, MODULES)
