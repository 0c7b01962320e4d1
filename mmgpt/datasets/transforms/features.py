"""Loading of cached image features in place of images."""

from collections.abc import Sequence

import torch

from mmgpt.datasets.feature_cache import FILL_COMMAND, CacheMiss, FeatureCache, image_key
from mmgpt.datasets.image_folders import image_path
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import MissingImageError, SampleLocation


@TRANSFORMS.register_module()
class LoadFeatures:
    """Reads cached features of the images of a sample, in place of the transforms that load and prepare pixels.

    Adds `pixels`, (T, P, D) in the dtype of the cache, or None for a sample without images.

    Args:
        cache: folder that tools/dataset_converters/cache_features.py fills.
        steps: configs of the transforms that are replaced; the features are those of images prepared by them.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: the cache was filled with other transforms.
        MissingImageError: an image does not exist.
        CacheMiss: an image is not in the cache, or its file has changed.
    """

    def __init__(self, cache: str | None, steps: Sequence[dict]):
        self.folder, self.cache = cache, FeatureCache(cache, steps)

    def __call__(self, results: dict) -> dict:
        features = []
        for image in results["images"]:
            path = image_path(results.get("image_folder", ""), image)
            try:
                features.append(self.cache.read(image_key(path)))
            except FileNotFoundError as error:
                raise MissingImageError("no such file", SampleLocation.of(results, image=path)) from error
            except KeyError as error:
                reason = f"no features in {self.folder} of the file as it is now: `{FILL_COMMAND}` adds them"
                raise CacheMiss(reason, SampleLocation.of(results, image=path)) from error
        results["pixels"] = torch.stack(features) if features else None
        return results
