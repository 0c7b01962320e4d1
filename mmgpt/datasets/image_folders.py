"""Paths of images, and the checks of a dataset's image folders and files, made when its annotation file is read."""

import logging
import os
from collections.abc import Iterable, Mapping
from itertools import filterfalse

from mmengine.logging import print_log

from mmgpt.utils.data_uri import is_data_uri
from mmgpt.utils.errors import MissingImageError, SampleLocation

from .shards.images import is_shard_image

LISTED = 20  # missing files that a message names


def image_path(folder: str | os.PathLike, image: str) -> str:
    """Path of an image of a sample, relative to its folder or absolute; a data URI stays as it is."""
    return image if is_data_uri(image) else os.path.join(folder, image)


def real_path(folder: str | os.PathLike, image: str) -> str:
    """Path of an image of a sample without symbolic links; a data URI stays as it is."""
    return image if is_data_uri(image) else os.path.realpath(os.path.join(folder, image))


def check_image_folders(samples: Iterable[dict], prefix: str, origin: Mapping[str, str], skip_errors: bool) -> None:
    """Check that the image folders of samples exist, by looking for the first image of each.

    Args:
        samples: samples whose image paths are relative to `prefix`.
        prefix: image folder of the dataset.
        origin: name and file of the dataset, for messages.
        skip_errors: whether training skips samples that cannot be read. Then only folders are looked for, and a missing
            one is logged. When all folders are missing, the path in the config must be wrong.

    Raises:
        MissingImageError: the first image of a folder is missing; when skipping, all folders are.
    """
    first_images: dict[str, tuple[str, dict]] = {}
    for sample in samples:
        for image in filterfalse(is_data_uri, sample["images"]):
            first_images.setdefault(os.path.dirname(image), (os.path.join(prefix, image), sample))
    missing = [
        (path, sample)
        for path, sample in first_images.values()
        if not (os.path.isdir(os.path.dirname(path) or ".") if skip_errors else os.path.isfile(path))
    ]
    if not missing:
        return
    path, sample = missing[0]
    location = SampleLocation.of({**sample, **origin}, image=path)
    error = MissingImageError(f"no such file (data_prefix=dict(img={prefix!r}))", location)
    if not skip_errors or len(missing) == len(first_images):
        raise error
    count = f"{len(missing)} of {len(first_images)} image folders are missing"
    print_log(f"{count}: {error}", "current", logging.WARNING)


def check_image_files(samples: Iterable[dict], folder: str, origin: Mapping[str, str], skip_errors: bool) -> None:
    """Check that the image files which samples of shards name, in place of bytes in the shards, exist.

    Args:
        samples: samples whose image paths are relative to `folder`.
        folder: that of the shards.
        origin: name and file of the dataset, for messages.
        skip_errors: whether training skips samples that cannot be read. Then the missing files are logged, unless all
            are missing.

    Raises:
        MissingImageError: files are missing; lists the first of them.
    """
    names = (name for sample in samples for name in sample["images"])
    paths = {os.path.join(folder, name) for name in names if not is_data_uri(name) and not is_shard_image(name)}
    missing = sorted(path for path in paths if not os.path.isfile(path))
    if not missing:
        return
    more = [f"and {len(missing) - LISTED} more"] * (len(missing) > LISTED)
    reason = f"{len(missing)} of {len(paths)} image files that its shards name are missing:"
    error = MissingImageError("\n  ".join([reason, *missing[:LISTED], *more]), SampleLocation(**origin))
    if not skip_errors or len(missing) == len(paths):
        raise error
    print_log(str(error), "current", logging.WARNING)
