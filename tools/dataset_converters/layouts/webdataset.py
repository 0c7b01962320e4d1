"""Reader of WebDataset shards: tar files in which members with the same key are one sample."""

import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from mmgpt.datasets.image_files import SUFFIXES, is_hidden
from mmgpt.datasets.shards.tar import MEDIA_SUFFIXES, split_name

from .images import save_image, shards
from .rows import ROLES, at, find_columns, row_sample, without_nulls


def read_webdataset(source: Path, overrides: Mapping[str, str], folder: Path) -> Iterator[tuple[str, dict]]:
    """Tar files of WebDataset (one, or a folder of them): key.jpg with key.txt, the caption, or key.json, or both.

    The keys of the JSON are the columns of parquet, and null counts as missing; the caption is one more, `text`. Images
    are written into a folder under names of their own. Links and hidden files are skipped.
    """
    for path in shards(source, ".tar"):
        for key, members in _groups(path):
            location = f"{path}, sample {key!r}"
            with at(location):
                # 1. The row: the keys of the JSON, and the caption as `text`.
                names = ", ".join(members)
                media = next((name for name in members if name.endswith(MEDIA_SUFFIXES)), None)
                if media:
                    raise ValueError(f"its {media} is not an image, and only images are read")
                with at(".json"):
                    try:
                        row = without_nulls(json.loads(members.get(".json", b"{}")))
                    except RecursionError as error:
                        raise ValueError(str(error)) from error
                if ".txt" in members:
                    with at(".txt"):
                        row["text"] = members[".txt"].decode("utf-8-sig")
                if not row:
                    raise ValueError(f"no .txt or .json with it, only {names}")
                # 2. The images. Without any, the JSON must not name one, and no binary member may be one.
                images = [save_image(content, folder) for name, content in members.items() if name.endswith(SUFFIXES)]
                if not images:
                    origin = next((row[key] for key in ROLES["image"] if row.get(key)), None)
                    if origin:
                        raise ValueError(f"its JSON names the image {origin!r:.80}, only {names} are there")
                    binary = next((name for name, content in members.items() if b"\0" in content[:1024]), None)
                    if binary:
                        raise ValueError(f"its {binary} is not read: images end in {', '.join(SUFFIXES)}")
                # 3. The sample, with the images of the tar file: the JSON may have the path or URL of their origin.
                columns = find_columns([*row, "image"], {**overrides, "image": "image"})
                sample = row_sample({**row, "image": images}, columns)
            yield location, dict(sample, id=sample["id"] or key)


def _groups(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and contents, by the rest of the name, of consecutive members of a tar file with one key."""
    try:
        with tarfile.open(path) as tar:
            files = (member for member in tar if member.isfile() and not is_hidden(member.name.removeprefix("./")))
            for key, members in groupby(_check_unique(path, files), key=lambda member: split_name(member.name)[0]):
                yield key, {split_name(member.name)[1]: tar.extractfile(member).read() for member in members}
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a readable tar file: {error}") from error


def _check_unique(path: Path, members: Iterator[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file. ValueError when two have the same key and rest of the name."""
    names = set()
    for member in members:
        name = split_name(member.name)
        if name in names:
            raise ValueError(f"{path}: {member.name!r} is in it twice")
        names.add(name)
        yield member
