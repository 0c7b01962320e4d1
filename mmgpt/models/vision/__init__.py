"""Image encoders: pixels (N, 3, H, W) to patch features (N, P, D), one library a file.

Each is a module with `width`, the D, and `pretrained`: whether its weights were loaded.
"""

from .huggingface import HFVision
from .mmpretrain import MMPretrainVision
from .open_clip import OpenCLIPVision

__all__ = ["HFVision", "MMPretrainVision", "OpenCLIPVision"]
