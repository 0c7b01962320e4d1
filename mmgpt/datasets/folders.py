"""The folders of images that samples name, looked at before hours of training."""

import logging
import os
from collections.abc import Iterable, Mapping

from mmengine.logging import print_log

from mmgpt.utils.errors import MissingImageError, SampleLocation


def check_folders(samples: Iterable[dict], prefix: str, where: Mapping[str, str], skips: bool) -> None:
    """Looks for one image of each folder.

    Args:
        samples: with the paths of their images, relative to `prefix`.
        prefix: the dataset's image folder.
        where: its name and file, for messages.
        skips: whether training skips samples that cannot be read. Then a missing image is left to it, and a missing
            folder is logged; only when there is none of the folders, the mistake is the user's.

    Raises:
        FileNotFoundError: the first image of a folder is missing; when skipping, all folders are.
    """
    first: dict[str, tuple[str, dict]] = {}
    for sample in samples:
        for image in sample["images"]:
            first.setdefault(os.path.dirname(image), (os.path.join(prefix, image), sample))
    found = _has_folder if skips else os.path.isfile
    missing = [(path, sample) for path, sample in first.values() if not found(path)]
    if not missing:
        return
    path, sample = missing[0]
    location = SampleLocation.of({**sample, **where}, image=path)
    error = MissingImageError(f"no such file (data_prefix=dict(img={prefix!r}))", location)
    if not skips or len(missing) == len(first):
        raise error
    print_log(f"{len(missing)} of {len(first)} image folders are missing: {error}", "current", logging.WARNING)


def _has_folder(path: str) -> bool:
    return os.path.isdir(os.path.dirname(path) or ".")
