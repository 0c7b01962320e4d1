"""Loading of cached image features in place of images."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from mmgpt.datasets.feature_cache import FILL_COMMAND, CacheMiss, FeatureCache, image_key
from mmgpt.datasets.image_folders import image_path
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import MissingImageError, SampleLocation


@TRANSFORMS.register_module()
class LoadFeatures:
    """Reads cached features of the images of a sample, in place of the transforms that load and prepare pixels.

    Adds `pixels`, (T, P, D) in the dtype of the cache, or None for a sample without images. Where the steps cut images
    into tiles, it adds the features (T, F, P, D) of frames and their `tile_ids` (T, F), as PrepareImages does.

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
                features.append(self.cache.read_frames(image_key(path)))
            except FileNotFoundError as error:
                raise MissingImageError("no such file", SampleLocation.of(results, image=path)) from error
            except KeyError as error:
                reason = (
                    f"no features in {self.folder} of the file as it is now: `{FILL_COMMAND}` adds them, with the "
                    "--cfg-options of this run (`seed` draws the images of a dataset with `sample`)"
                )
                raise CacheMiss(reason, SampleLocation.of(results, image=path)) from error
        results["pixels"] = results["tile_ids"] = None
        if features:
            frames, tile_ids = zip(*features, strict=True)
            tiled = tile_ids[0] is not None
            results["pixels"] = pad_sequence(frames, True) if tiled else torch.cat(frames)
            results["tile_ids"] = pad_sequence(tile_ids, True, -1) if tiled else None
        return results
