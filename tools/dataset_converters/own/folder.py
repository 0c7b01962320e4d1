"""Folders of pictures with their captions."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmgpt.datasets.image_files import SUFFIXES

from .pictures import visible
from .rows import at
from .tables import read_lines, read_table

TABLES = {"metadata.csv": read_table, "metadata.jsonl": read_lines}


def read_folder(source: Path, named: Mapping[str, str]) -> Iterator[tuple[str, dict]]:
    """A folder of pictures, each with its caption beside it (1.jpg, 1.txt), or described by metadata.csv or .jsonl.

    The latter are Hugging Face's imagefolder: columns file_name, file_names or NAME_file_name (relative to the table)
    and text, or as for csv. Folders within it belong to it; hidden files and folders do not.
    """
    tables = sorted(path for name in TABLES for path in visible(source, name))
    if not tables:
        yield from _captioned(source)
        return
    shown = False
    for path in tables:
        folder = path.parent.relative_to(source)
        for place, sample in TABLES[path.name](path, named):
            shown |= bool(sample["images"])
            yield place, dict(sample, images=[(folder / image).as_posix() for image in sample["images"]])
    if not shown and (pictures := _pictures(source)):
        raise ValueError(
            f"{source} holds {len(pictures)} pictures, the first {pictures[0]}, but {tables[0].name} names none: "
            "name the column by --columns image=NAME"
        )


def _captioned(source: Path) -> Iterator[tuple[str, dict]]:
    pictures = _pictures(source)
    missing = [path for path in pictures if not path.with_suffix(".txt").is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(pictures)} pictures in {source} have no caption beside them, and it holds no "
            f"{' or '.join(TABLES)}; the first: {missing[0]} (looked for {missing[0].with_suffix('.txt').name})"
        )
    for path in pictures:
        name = path.relative_to(source)
        with at(str(path.with_suffix(".txt"))):
            caption = path.with_suffix(".txt").read_text(encoding="utf-8-sig").strip()
        turn = {"question": "", "answer": caption}
        yield str(path), {"id": name.with_suffix("").as_posix(), "images": [name.as_posix()], "turns": [turn]}


def _pictures(source: Path) -> list[Path]:
    return sorted(path for path in visible(source, "*") if path.suffix.lower() in SUFFIXES and path.is_file())
