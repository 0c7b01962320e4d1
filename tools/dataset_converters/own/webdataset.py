"""WebDataset's shards: tar files whose members belong together by their names."""

import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from mmgpt.datasets.image_files import SUFFIXES, is_hidden

from .pictures import keep, shards
from .rows import ROLES, as_object, at, find_columns, row_sample

OTHER_MEDIA = (
    ".mp4",
    ".webm",
    ".avi",
    ".mov",
    ".mkv",
    ".wav",
    ".mp3",
    ".flac",
    ".ogg",
    ".opus",
    ".m4a",
    ".heic",
    ".svg",
)


def read_webdataset(source: Path, named: Mapping[str, str], folder: Path) -> Iterator[tuple[str, dict]]:
    """Tar files of WebDataset (one, or a folder of them): key.jpg with key.txt, the caption, or key.json, or both.

    The keys of the JSON are the columns of csv (or `conversations` in LLaVA's layout); the caption is one more, `text`.
    The pictures are written into a folder; nothing else of a tar file gets a name there. Links and hidden files are
    passed over.
    """
    for path in shards(source, ".tar"):
        for key, members in _groups(path):
            place = f"{path}, sample {key!r}"
            with at(place):
                row = _row(members)
                images = [keep(content, folder) for name, content in members.items() if name.endswith(SUFFIXES)]
                if not images:
                    _no_pictures(row, members)
                # The picture comes from the tar file, whatever the JSON says of where it once was.
                columns = find_columns([*row, "image"], {**named, "image": "image"})
                sample = row_sample({**row, "image": images}, columns)
            yield place, dict(sample, id=sample["id"] or key)


def _no_pictures(row: Mapping, members: Mapping[str, bytes]) -> None:
    """Raises a ValueError for a sample without a picture whose JSON names one, or that has a member nobody reads."""
    named = next((row[key] for key in ROLES["image"] if row.get(key)), None)
    if named:
        raise ValueError(f"its JSON names the image {named!r:.80}, only {', '.join(members)} are there")
    binary = next((name for name, content in members.items() if b"\0" in content[:1024]), None)
    if binary:
        raise ValueError(f"its {binary} is not read: images end in {', '.join(SUFFIXES)}")


def _groups(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key, and contents by the rest of the name, of the members of a tar file that stand together."""
    try:
        with tarfile.open(path) as tar:
            files = (member for member in tar if member.isfile() and not is_hidden(member.name.removeprefix("./")))
            for key, members in groupby(_once(path, files), key=lambda member: _split(member.name)[0]):
                yield key, {_split(member.name)[1]: tar.extractfile(member).read() for member in members}
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: no readable tar file: {error}") from error


def _once(path: Path, members: Iterator[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    """The members, as long as no two have the same key and rest of the name."""
    names = set()
    for member in members:
        name = _split(member.name)
        if name in names:
            raise ValueError(f"{path}: {member.name!r} is in it twice")
        names.add(name)
        yield member


def _split(name: str) -> tuple[str, str]:
    """Key and rest of a member's name, at the first point behind its folder."""
    folder, slash, base = name.rpartition("/")
    key, point, rest = base.partition(".")
    return folder + slash + key, f"{point}{rest}".lower()


def _row(members: Mapping[str, bytes]) -> dict:
    media = next((name for name in members if name.endswith(OTHER_MEDIA)), None)
    if media:
        raise ValueError(f"its {media} is no image, and only images are read")
    with at(".json"):
        try:
            row = as_object(json.loads(members.get(".json", b"{}")))
        except RecursionError as error:
            raise ValueError(str(error)) from error
    if ".txt" in members:
        with at(".txt"):
            row["text"] = members[".txt"].decode("utf-8-sig")
    if not row:
        raise ValueError(f"no .txt or .json with it, only {', '.join(members)}")
    return row
