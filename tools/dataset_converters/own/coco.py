"""COCO's own files of captions."""

from collections.abc import Iterator
from pathlib import Path

from mmgpt.datasets.parsers.fields import field
from mmgpt.datasets.records import find_parser, read_json

from .rows import as_object, at


def read_coco(source: Path) -> Iterator[tuple[str, dict]]:
    """COCO's captions_*.json: two lists, `images` and `annotations`, joined by the image's id; one sample an image.

    Pictures without a caption are passed over. (The lists of Karpathy's split are read by the parser coco_caption.)
    """
    content = read_json(source)
    with at(str(source)):
        if not isinstance(content, dict):
            raise ValueError(f"expected an object with images and annotations, got {type(content).__name__}")
        images, annotations = field(content, "images", list), field(content, "annotations", list)
    captions = {}
    for number, image in enumerate(images):
        with at(f"{source}, images, record {number}"):
            captions[field(as_object(image), "id", (int, str))] = (field(image, "file_name"), [])
    for number, annotation in enumerate(annotations):
        with at(f"{source}, annotations, record {number}"):
            name = field(as_object(annotation), "image_id", (int, str))
            if name not in captions:
                raise ValueError(f"no image with the id {name!r}")
            captions[name][1].append(field(annotation, "caption"))
    read = find_parser("coco_caption")
    for name, (file, said) in captions.items():
        if said:
            yield f"{source}, image {name!r}", read({"image_id": name, "image": file, "caption": said})
