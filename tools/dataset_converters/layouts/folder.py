"""Reader of folders of images with captions."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.image_files import SUFFIXES

from .images import visible
from .rows import at
from .tables import read_lines, read_table

TABLES = {"metadata.csv": read_table, "metadata.jsonl": read_lines}


def read_folder(source: Path, overrides: Mapping[str, str]) -> Iterator[tuple[str, dict]]:
    """A folder of images, each with its caption beside it (1.jpg, 1.txt), or with metadata.csv or metadata.jsonl.

    The tables are those of Hugging Face's imagefolder: columns file_name, file_names or NAME_file_name (relative to the
    table) and text, or as for csv. Subfolders are read too; hidden files and folders are not.
    """
    tables = sorted(path for name in TABLES for path in visible(source, name))
    # 1. Without a table, each image has its caption beside it.
    if not tables:
        images = _images(source)
        missing = [path for path in images if not path.with_suffix(".txt").is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(images)} images in {source} have no caption beside them, and it holds no "
                f"{' or '.join(TABLES)}; the first: {missing[0]} (looked for {missing[0].with_suffix('.txt').name})"
            )
        for path in images:
            name = path.relative_to(source)
            with at(str(path.with_suffix(".txt"))):
                caption = path.with_suffix(".txt").read_text(encoding="utf-8-sig").strip()
            turn = {"question": "", "answer": caption}
            yield str(path), {"id": name.with_suffix("").as_posix(), "images": [name.as_posix()], "turns": [turn]}
        return
    # 2. The rows of the tables, whose images are relative to their table.
    has_images = False
    for path in tables:
        folder = path.parent.relative_to(source)
        for location, sample in TABLES[path.name](path, overrides):
            has_images |= bool(sample["images"])
            yield location, dict(sample, images=[(folder / image).as_posix() for image in sample["images"]])
    if not has_images and (images := _images(source)):
        raise ValueError(
            f"{source} holds {len(images)} images, the first {images[0]}, but {tables[0].name} names none: "
            "name the column by --columns image=NAME"
        )


def _images(source: Path) -> list[Path]:
    return sorted(path for path in visible(source, "*") if path.suffix.lower() in SUFFIXES and path.is_file())
