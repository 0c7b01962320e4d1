"""Computes the features of all images that a config's datasets read by LoadFeatures, with the config's image encoder.

    python tools/dataset_converters/cache_features.py configs/mmgpt/tiny_lora_cached.py

Goes through the images of the samples that the datasets keep, of all splits, each once, and writes what is not yet in
the config's feature_cache; a fill that was stopped goes on. Images that cannot be read are named at the end, with exit
status 1. A split is left out by --cfg-options test_dataloader=None (or val_dataloader).
"""

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.dataset import Compose
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmgpt.apis.build import find_device
from mmgpt.cli import check_files, load_config, tool
from mmgpt.cli.files import PARTS
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.feature_cache import FeatureCache, add_features, create_cache, image_key
from mmgpt.datasets.inspection.check import SPLITS, lazy_datasets
from mmgpt.datasets.inspection.text_checks import read_images
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.datasets.transforms import LoadFeatures
from mmgpt.engine.hooks.progress_bar import progress_bar
from mmgpt.models.vision.fingerprint import is_known, write_probe
from mmgpt.registry import MODELS

IN_FILE = 512  # images; 256 MB of ViT-L/14 in float16
LOADERS = [f"{split}_dataloader" for split in SPLITS]
DTYPES = ("float16", "float32")
EXAMPLES = 5


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file with image_steps='${feature_steps}' and feature_cache=FOLDER")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time; default: 64")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that prepare images")
    parser.add_argument("--device", help="of the image encoder; default: the first GPU, or the CPU")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of what is stored; default: float16")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


class PreparedImages(Dataset):
    """Key and pixels (3, H, W) of each of some image files; of one that cannot be read, what is wrong."""

    def __init__(self, paths: Sequence[str], steps: Sequence[dict]):
        self.paths, self.prepare = paths, Compose(build_pipeline(steps))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[int, Tensor] | str:
        try:
            # First: a file that changes meanwhile must not be found as what it is then.
            key = image_key(self.paths[i])
            return key, self.prepare({"images": [self.paths[i]]})["pixels"][0]
        except (OSError, ValueError) as error:
            return str(error)


def feature_steps(part: object) -> Iterator[dict]:
    """The LoadFeatures anywhere in a part of a config."""
    if isinstance(part, Mapping):
        if part.get("type") == "LoadFeatures":
            yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for item in part:
            yield from feature_steps(item)


def the_cache(cfg: Mapping, loaders: Sequence[str]) -> tuple[str, list[dict]]:
    """Folder and steps of the LoadFeatures in a config, which have to be the same in all places."""
    found = []
    for step in feature_steps([cfg.get(loader) for loader in loaders]):
        found += [(step["cache"], step["steps"])] * ((step["cache"], step["steps"]) not in found)
    if len(found) != 1 or found[0][0] is None:
        raise ValueError(
            "the config's datasets must read one cache: set image_steps='${feature_steps}' and feature_cache=FOLDER "
            f"(found: {', '.join(str(folder) for folder, _ in found) or 'no LoadFeatures'})"
        )
    return found[0]


def images_of(cfg: Mapping, loaders: Sequence[str]) -> list[str]:
    """The paths of all images that samples read from a cache, each once."""
    paths = {}
    for loader in loaders:
        for dataset in lazy_datasets(cfg[loader]["dataset"]):
            if any(isinstance(step, LoadFeatures) for step in dataset.pipeline.transforms):
                dataset.full_init()
                samples = (dataset.get_data_info(i) for i in range(len(dataset)))
                paths.update(dict.fromkeys(path for sample in samples for path in read_images(dataset, sample)))
    # A file that is reached by two names is one.
    return list({os.path.realpath(path): path for path in paths}.values())


def in_cache(cache: FeatureCache, path: str) -> bool:
    """Whether an image needs no look; one that is not there does."""
    try:
        return image_key(path) in cache
    except OSError:
        return False


def collate(images: Sequence[tuple[int, Tensor] | str]) -> tuple[list[int], Tensor | None, list[str]]:
    """Keys and pixels (n, 3, H, W) of what PreparedImages could read of a batch, and what is wrong with the others."""
    read = [image for image in images if not isinstance(image, str)]
    pixels = torch.stack([pixels for _, pixels in read]) if read else None
    return [key for key, _ in read], pixels, [image for image in images if isinstance(image, str)]


@torch.no_grad()
def see(tower: nn.Module, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Features (n, P, D) on the CPU."""
    features = tower(pixels.to(next(tower.parameters()))).to(dtype).cpu()
    if not features.isfinite().all():
        raise ValueError(f"this image encoder gives numbers beyond those of {dtype}: use --dtype float32")
    return features


def fill(folder: str, tower: nn.Module, loader: DataLoader, dtype: torch.dtype) -> list[str]:
    """Adds the features of all images that the loader reads to a cache; returns what is wrong with the others."""
    waiting, problems = [], []
    with progress_bar("images", len(loader.dataset)) as bar:
        for number, (keys, pixels, wrong) in enumerate(loader, start=1):
            problems += wrong
            if keys:
                waiting.append((torch.tensor(keys), see(tower, pixels, dtype)))
            if waiting and (sum(len(keys) for keys, _ in waiting) >= IN_FILE or number == len(loader)):
                add_features(folder, *map(torch.cat, zip(*waiting, strict=True)))
                waiting = []
            bar.update(len(keys) + len(wrong))
    return problems


def first_pixels(images: PreparedImages) -> Tensor:
    """Pixels (1, 3, H, W) of the first image that can be read. ValueError when there is none."""
    for image in images:
        if not isinstance(image, str):
            return image[1][None]
    raise ValueError(f"none of {len(images)} images can be read; the first: {images[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the images, fill the cache, print; ends with an error when images cannot be read."""
    args = parse_args(arguments)
    if args.workers < 1 or args.batch_size < 1:
        raise ValueError(f"--workers {args.workers} --batch-size {args.batch_size}: at least 1 of both")
    cfg = load_config(args.config, args.cfg_options)
    loaders = [name for name in LOADERS if any(feature_steps(cfg.get(name)))]
    folder, steps = the_cache(cfg, loaders)
    vision = cfg.model.get("module", cfg.model)["vision"]
    check_files({**cfg, "model": vision}, skip=set(PARTS) - {"model", *loaders})
    create_cache(folder, steps, args.dtype)
    tower = MODELS.build(vision).eval()
    known = is_known(tower, folder)
    cache, images = FeatureCache(folder, steps), images_of(cfg, loaders)
    missing = PreparedImages([path for path in images if not in_cache(cache, path)], steps)
    print(f"{len(images)} images, {len(images) - len(missing)} of them in {folder} already")
    if not len(missing):
        return
    if not known:
        write_probe(tower, first_pixels(missing), folder)
    workers = args.workers if args.workers > 1 else 0
    loader = DataLoader(missing, args.batch_size, num_workers=workers, collate_fn=collate)
    start = time.time()
    problems = fill(folder, tower.to(find_device(args.device)), loader, getattr(torch, args.dtype))
    rate = (len(missing) - len(problems)) / (time.time() - start)
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    print(f"{len(missing) - len(problems)} images added, {rate:.1f} a second; {folder} takes {size / 1e6:.1f} MB")
    if problems:
        more = [f"and {len(problems) - EXAMPLES} more"] * (len(problems) > EXAMPLES)
        raise ValueError("\n".join([f"{len(problems)} images cannot be read:", *problems[:EXAMPLES], *more]))


if __name__ == "__main__":
    tool.run(main)
