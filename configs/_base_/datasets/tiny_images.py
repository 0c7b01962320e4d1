# Settings of the tiny world's images, for training on it and for pretraining its base.
_base_ = "./pipelines.py"

image_size = 64
image_mean = [0.5, 0.5, 0.5]
image_std = [0.5, 0.5, 0.5]
