"""Image encoders: pixels (N, 3, H, W) to patch features (N, P, D)."""

from .encoders import HFVision, MMPretrainVision, OpenCLIPVision

__all__ = ["HFVision", "MMPretrainVision", "OpenCLIPVision"]
