"""Command that fills a config's feature cache: the image encoder's features of all images that its datasets read.

    python tools/dataset_converters/cache_features.py configs/mmgpt/tiny_lora_cached.py

It encodes each image of the datasets with LoadFeatures once, in all splits, and adds to the config's feature_cache what
the cache does not hold yet, so that an interrupted command can be continued. Images that cannot be read are
listed at the end, with exit status 1. --cfg-options test_dataloader=None (or val_dataloader) leaves out a split.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.dataset import Compose
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmgpt.apis.build import find_device
from mmgpt.cli import check_files, load_config, tool
from mmgpt.cli.config import flamingo_config, steps_of
from mmgpt.cli.files import SECTIONS
from mmgpt.cli.options import add_cfg_options
from mmgpt.datasets.feature_cache import FeatureCache, add_features, create_cache, image_key
from mmgpt.datasets.inspection.check import SPLITS, lazy_datasets
from mmgpt.datasets.inspection.text_checks import read_images
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.datasets.transforms import LoadFeatures
from mmgpt.models.components import build_encoder
from mmgpt.models.vision.fingerprint import check_fingerprint, write_fingerprint
from mmgpt.utils.progress_bar import progress_bar

IMAGES_PER_FILE = 512  # 256 MB of ViT-L/14's features in float16
LOADERS = [f"{split}_dataloader" for split in SPLITS]
DTYPES = ("float16", "float32")
SHOWN_PROBLEMS = 5


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file with image_steps='${feature_steps}' and feature_cache=FOLDER")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch; default: 64")
    workers = "processes that prepare images; with 0 or 1 this process prepares them; default: one per CPU core"
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help=workers)
    parser.add_argument("--device", help="device of the image encoder; default: the first GPU, or the CPU")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="dtype of the features; default: float16")
    add_cfg_options(parser)
    return parser.parse_args(arguments)


class PreparedImages(Dataset):
    """Dataset of the key, the frames (F, 3, H, W) and the `tile_ids` (F,) of image files.

    Images without tiles have one frame, and None in place of `tile_ids`; an unreadable one is an error message.
    """

    def __init__(self, paths: Sequence[str], steps: Sequence[dict]):
        self.paths, self.prepare = paths, Compose(build_pipeline(steps))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[int, Tensor, Tensor | None] | str:
        try:
            # The key comes first: a file that changes after this line must not be cached under its later key.
            key = image_key(self.paths[i])
            results = self.prepare({"images": [self.paths[i]]})
            pixels, tile_ids = results["pixels"], results["tile_ids"]
            return (key, pixels, None) if tile_ids is None else (key, pixels[0], tile_ids[0])
        except (OSError, ValueError) as error:
            return str(error)


def cache_of(cfg: Mapping, loaders: Sequence[str]) -> tuple[str, list[dict]]:
    """Folder and pixel steps of a config's feature cache. ValueError unless all LoadFeatures have the same ones."""
    caches = []
    for step in steps_of([cfg.get(loader) for loader in loaders], "LoadFeatures"):
        cache = step["cache"], step["steps"]
        caches += [] if cache in caches else [cache]
    if len(caches) != 1 or caches[0][0] is None:
        raise ValueError(
            "the config's datasets must read one cache: set image_steps='${feature_steps}' and feature_cache=FOLDER "
            f"(found: {', '.join(str(folder) for folder, _ in caches) or 'no LoadFeatures'})"
        )
    return caches[0]


def images_of(cfg: Mapping, loaders: Sequence[str]) -> list[str]:
    """The paths of all images whose features samples read from a cache, each once."""
    paths = {}
    for loader in loaders:
        for dataset in lazy_datasets(cfg[loader]["dataset"]):
            if any(isinstance(step, LoadFeatures) for step in dataset.pipeline.transforms):
                dataset.full_init()
                samples = (dataset.get_data_info(i) for i in range(len(dataset)))
                paths.update(dict.fromkeys(path for sample in samples for path in read_images(dataset, sample)))
    # Two paths may lead to one file.
    return list({_key_or_path(path): path for path in paths}.values())


def _key_or_path(path: str) -> int | str:
    """Key of an image; its real path where there is no such file."""
    try:
        return image_key(path)
    except OSError:
        return os.path.realpath(path)


def in_cache(cache: FeatureCache, path: str) -> bool:
    """Whether a cache has the features of an image file; False where there is no such file."""
    try:
        return image_key(path) in cache
    except OSError:
        return False


def collate(
    images: Sequence[tuple[int, Tensor, Tensor | None] | str],
) -> tuple[list[int], Tensor | None, Tensor | None, list[str]]:
    """Keys, pixels (n, 3, H, W) and `tile_ids` (n,) of the frames of PreparedImages, and the errors of the others."""
    readable = [image for image in images if not isinstance(image, str)]
    pixels = torch.cat([pixels for _, pixels, _ in readable]) if readable else None
    tiles = [tile_ids for *_, tile_ids in readable if tile_ids is not None]
    keys = [key for key, pixels, _ in readable for _ in pixels]
    return keys, pixels, torch.cat(tiles) if tiles else None, [image for image in images if isinstance(image, str)]


@torch.no_grad()
def encode(vision: nn.Module, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Features (n, P, D) on the CPU. ValueError when they do not fit into the dtype."""
    features = vision(pixels.to(next(vision.parameters()))).to(dtype).cpu()
    if not features.isfinite().all():
        raise ValueError(f"the features of this image encoder are beyond the range of {dtype}: use --dtype float32")
    return features


def fill(folder: str, vision: nn.Module, loader: DataLoader, dtype: torch.dtype) -> list[str]:
    """Adds the features of a loader's images to a cache; returns the errors of the images that cannot be read."""
    pending, problems = [], []
    with progress_bar("images", len(loader.dataset)) as bar:
        for number, (keys, pixels, tile_ids, errors) in enumerate(loader, start=1):
            problems += errors
            if keys:
                frames = [torch.tensor(keys), encode(vision, pixels, dtype)]
                pending.append(frames if tile_ids is None else [*frames, tile_ids])
            if pending and (sum(len(keys) for keys, *_ in pending) >= IMAGES_PER_FILE or number == len(loader)):
                add_features(folder, *map(torch.cat, zip(*pending, strict=True)))
                pending = []
            bar.update(len(set(keys)) + len(errors))
    return problems


def first_pixels(images: PreparedImages) -> Tensor:
    """Pixels (1, 3, H, W) of the first image that can be read. ValueError when there is none."""
    for image in images:
        if not isinstance(image, str):
            return image[1][:1]
    raise ValueError(f"none of {len(images)} images can be read; the first: {images[0]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Finds the images and fills the cache. ValueError at the end when images cannot be read."""
    args = parse_args(arguments)
    if args.workers < 0 or args.batch_size < 1:
        raise ValueError(f"--workers {args.workers} --batch-size {args.batch_size}: at least 0 workers and 1 image")
    cfg = load_config(args.config, args.cfg_options)
    loaders = [name for name in LOADERS if any(steps_of(cfg.get(name), "LoadFeatures"))]
    folder, steps = cache_of(cfg, loaders)
    config = flamingo_config(cfg)["vision"]
    check_files({**cfg, "model": config}, skip=set(SECTIONS) - {"model", *loaders})
    create_cache(folder, steps, args.dtype)
    vision = build_encoder(config).eval()
    has_fingerprint = check_fingerprint(vision, folder)
    cache, images = FeatureCache(folder, steps), images_of(cfg, loaders)
    missing = PreparedImages([path for path in images if not in_cache(cache, path)], steps)
    print(f"{len(images)} images, {len(images) - len(missing)} of them in {folder} already")
    if not len(missing):
        return
    if not has_fingerprint:
        write_fingerprint(vision, first_pixels(missing), folder)
    workers = args.workers if args.workers > 1 else 0
    loader = DataLoader(missing, args.batch_size, num_workers=workers, collate_fn=collate)
    start = time.time()
    problems = fill(folder, vision.to(find_device(args.device)), loader, getattr(torch, args.dtype))
    rate = (len(missing) - len(problems)) / (time.time() - start)
    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    print(f"{len(missing) - len(problems)} images added, {rate:.1f} a second; {folder} takes {size / 1e6:.1f} MB")
    if problems:
        more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] * (len(problems) > SHOWN_PROBLEMS)
        raise ValueError("\n".join([f"{len(problems)} images cannot be read:", *problems[:SHOWN_PROBLEMS], *more]))


if __name__ == "__main__":
    tool.run(main)
