# Settings of the tiny world's images, for training on it and for pretraining its base.
_base_ = "./pipelines.py"

prepare_images = dict(size=64, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])
