"""Reader of COCO's caption files."""

from collections.abc import Iterator
from pathlib import Path

from mmgpt.datasets.parsers.fields import field
from mmgpt.datasets.records import find_parser, read_json

from .rows import at, without_nulls


def read_coco(source: Path) -> Iterator[tuple[str, dict]]:
    """COCO's captions_*.json: two lists, `images` and `annotations`, joined by the image's id; one sample an image.

    Images without a caption are skipped. (The parser coco_caption reads the lists of Karpathy's split.)
    """
    content = read_json(source)
    with at(str(source)):
        if not isinstance(content, dict):
            raise ValueError(f"expected an object with images and annotations, got {type(content).__name__}")
        images, annotations = field(content, "images", list), field(content, "annotations", list)
    captions = {}
    for number, image in enumerate(images):
        with at(f"{source}, images, record {number}"):
            image = without_nulls(image)
            captions[field(image, "id", (int, str))] = (field(image, "file_name"), [])
    for number, annotation in enumerate(annotations):
        with at(f"{source}, annotations, record {number}"):
            annotation = without_nulls(annotation)
            name = field(annotation, "image_id", (int, str))
            if name not in captions:
                raise ValueError(f"no image with the id {name!r}")
            captions[name][1].append(field(annotation, "caption"))
    parse = find_parser("coco_caption")
    for name, (file, texts) in captions.items():
        if texts:
            yield f"{source}, image {name!r}", parse({"image_id": name, "image": file, "caption": texts})
