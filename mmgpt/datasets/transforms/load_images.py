"""Loading of images."""

import os
from io import BytesIO

from PIL import Image

from mmgpt.datasets.image_folders import image_path
from mmgpt.datasets.shards.images import image_source, shard_of
from mmgpt.datasets.untrusted_images import open_image
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.data_uri import is_data_uri, read_data_uri
from mmgpt.utils.errors import MissingImageError, SampleError, SampleLocation

from .images import upright_rgb


@TRANSFORMS.register_module()
class LoadImages:
    """Reads the images of a sample into `pil`, a list of PIL images from `upright_rgb`.

    Those of a stream are read from their bytes, which the sample has by their names in `image_bytes`.

    A data URI, which may come from a visitor of the chat page, is read within the limits of `open_image`.

    Raises:
        MissingImageError: an image does not exist.
        SampleError: a file or a data URI is not an image, is truncated, or is beyond the limits.
    """

    def __call__(self, results: dict) -> dict:
        results["pil"] = []
        for name in results["images"]:
            path = image_path(results.get("image_folder", ""), name)
            content = results.get("image_bytes", {}).get(name)
            if content is None and not is_data_uri(path) and not os.path.isfile(shard_of(path)):
                raise MissingImageError("no such file", SampleLocation.of(results, image=path))
            try:
                if is_data_uri(path):
                    results["pil"].append(open_image(read_data_uri(path)))
                else:
                    with Image.open(image_source(path) if content is None else BytesIO(content)) as image:
                        results["pil"].append(upright_rgb(image))
            # Pillow's plugins raise errors of any type for damaged files.
            except Exception as error:
                reason = f"cannot be read: {str(error) or type(error).__name__}"
                raise SampleError(reason, SampleLocation.of(results, image=path)) from error
        return results
