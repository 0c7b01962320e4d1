"""Command that computes a feature vector for each image of a config's test data and of its few-shot examples.

    python tools/dataset_converters/image_features.py configs/mmgpt/tiny_eval.py --out work_dirs/like.safetensors
    python tools/test.py configs/mmgpt/tiny_eval.py CHECKPOINT --cfg-options shots=4 similar=work_dirs/like.safetensors

AddExamples chooses the examples with the most similar images by these vectors: the mean patch features of the config's
image encoder. (OpenFlamingo's RICES takes CLIP's embedding, a projection of the same encoder's last layer.)
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from cache_features import PreparedImages, collate
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmgpt.apis.build import find_device
from mmgpt.cli import check_files, load_config, tool
from mmgpt.cli.config import flamingo_config
from mmgpt.cli.files import SECTIONS
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.image_folders import real_path
from mmgpt.datasets.inspection.check import lazy_datasets
from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.datasets.transforms import AddExamples
from mmgpt.models.components import build_encoder
from mmgpt.utils.atomic import atomic_write
from mmgpt.utils.progress_bar import progress_bar


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file with AddExamples in the pipelines of its test data")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch; default: 64")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that prepare images")
    parser.add_argument("--device", help="device of the image encoder; default: the first GPU, or the CPU")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def with_examples(config):
    """A config in which each AddExamples draws one example at random, so that its dataset is built."""
    if isinstance(config, Mapping):
        copy = {key: with_examples(value) for key, value in config.items()}
        return copy | dict(shots=1, similar=None) if config.get("type") == "AddExamples" else copy
    return [with_examples(item) for item in config] if isinstance(config, (list, tuple)) else config


def datasets(config: Mapping) -> Iterator[InstructionDataset]:
    """The datasets of a config and the datasets of their few-shot examples."""
    for dataset in lazy_datasets(with_examples(config)):
        yield dataset
        yield from (step.dataset for step in dataset.pipeline.transforms if isinstance(step, AddExamples))


def image_paths(config: Mapping) -> list[str]:
    """The real paths of all images of a config's datasets, each once."""
    paths = {}
    for dataset in datasets(config):
        dataset.full_init()
        for i in range(len(dataset)):
            sample = dataset.get_data_info(i)
            paths |= dict.fromkeys(real_path(sample["image_folder"], image) for image in sample["images"])
    return list(paths)


@torch.no_grad()
def mean_features(vision: nn.Module, loader: DataLoader) -> Tensor:
    """The mean patch features (n, D) of a loader's images. ValueError when an image cannot be read."""
    parameter, features = next(vision.parameters()), []
    with progress_bar("images", len(loader.dataset)) as bar:
        for _, pixels, tile_ids, problems in loader:
            if problems:
                raise ValueError(f"an image cannot be read: {problems[0]}")
            whole = pixels if tile_ids is None else pixels[tile_ids == 0]
            features.append(vision(whole.to(parameter)).float().mean(dim=1).cpu())
            bar.update(len(whole))
    return torch.cat(features)


def main(arguments: Sequence[str] | None = None) -> None:
    """Finds the images, encodes them and writes the file."""
    args = parse_args(arguments)
    cfg = load_config(args.config, args.cfg_options)
    config = flamingo_config(cfg)["vision"]
    check_files({**cfg, "model": config}, skip=set(SECTIONS) - {"model", "test_dataloader"})
    images = image_paths(cfg.test_dataloader.dataset)
    vision = build_encoder(config).eval().to(find_device(args.device))
    workers = args.workers if args.workers > 1 else 0
    prepared = PreparedImages(images, cfg.pixel_steps)
    features = mean_features(vision, DataLoader(prepared, args.batch_size, num_workers=workers, collate_fn=collate))
    with atomic_write(args.out) as temporary:
        temporary.write_bytes(save({"features": features}, {"images": json.dumps(images)}))
    print(f"{len(images)} images, {features.shape[1]} numbers each: {args.out}")


if __name__ == "__main__":
    tool.run(main)
