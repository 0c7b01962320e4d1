"""Images that are not opened: their features come from a cache."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmgpt.datasets.feature_cache import FILL, CacheMiss, FeatureCache, image_key
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import MissingImageError, SampleLocation


@TRANSFORMS.register_module()
class LoadFeatures:
    """Reads features of the images of a sample, in place of the steps that make pixels of them.

    Gives `pixels`, (T, P, D) in the dtype of the cache, or None for a sample without images.

    Args:
        cache: folder that tools/dataset_converters/cache_features.py fills.
        steps: configs of the steps that it stands for; the cache is of images that they prepared.

    Raises:
        FileNotFoundError: there is no cache; or an image does not exist (names it, annotation file and record).
        ValueError: the cache is of other steps; or an image is not in it, or has changed since (names the same).
    """

    def __init__(self, cache: str | None, steps: Sequence[dict]):
        self.folder, self.cache = cache, FeatureCache(cache, steps)

    def __call__(self, results: dict) -> dict:
        folder = Path(results.get("image_folder", ""))
        features = [self._read(folder / image, results) for image in results["images"]]
        results["pixels"] = torch.stack(features) if features else None
        return results

    def _read(self, path: Path, results: dict) -> Tensor:
        try:
            return self.cache.read(image_key(path))
        except FileNotFoundError as error:
            raise MissingImageError("no such file", SampleLocation.of(results, image=path)) from error
        except KeyError as error:
            raise CacheMiss(
                f"no features in {self.folder} of the file as it is now: `{FILL}` adds them",
                SampleLocation.of(results, image=path),
            ) from error
