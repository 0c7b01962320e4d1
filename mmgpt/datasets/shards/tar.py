"""Records of WebDataset shards: tar files in which members with the same key are one record."""

import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from itertools import groupby

from mmgpt.datasets.image_files import SUFFIXES, is_hidden
from mmgpt.datasets.records import decode_json
from mmgpt.utils.errors import SampleError, SampleLocation, located

from .images import Position, image_name

MEDIA_SUFFIXES = tuple(".mp4 .webm .avi .mov .mkv .wav .mp3 .flac .ogg .opus .m4a .heic .svg".split())
CHUNK = 1 << 20  # bytes that are read at a time after the end


def read_tar(path: str, name: str) -> Iterator[dict]:
    """Records of a tar file: `key.json`, `key.txt`, and the images of the same key (webdataset's format).

    A record has the keys of the JSON, the text as `caption` unless the JSON has one, and the key as `id` unless it has
    one. The images take the place of those that the JSON names: by their names where all of these are in the file, and
    otherwise in the order of their names, in which 2 is before 10. A JSON without any gets `image`, or `images` where
    there are several. Links and hidden files are skipped. Of an image only the position is read.

    Args:
        path: the file; it must not be compressed.
        name: its path from the image folder, for the names of images.

    Raises:
        SampleError: the file is damaged, or a record is: broken JSON, another number of images than the JSON names,
            another medium, a member that is there twice, no JSON or text.
    """
    number = 0
    with located(SampleLocation(file=path)):
        try:
            with tarfile.open(path, "r:") as tar:
                for key, members in members_by_key(tar):
                    with located(SampleLocation(file=path, record=number, id=key)):
                        yield _record(tar, name, key, members)
                    number += 1
                    tar.members = []  # tarfile keeps all of them otherwise
                _check_end(tar)
        except (tarfile.TarError, EOFError) as error:
            location = SampleLocation(file=path, record=number)
            raise SampleError(f"not a readable tar file: {error} (a compressed one is not read)", location) from error


def members_by_key(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key, and members by the rest of their names, of consecutive files of a tar file with one key.

    The key ends at the first dot after the folder.

    Raises:
        SampleError: two files have the same name, or a key comes again after others.
    """
    keys = set()
    files = (member for member in tar if member.isfile() and not is_hidden(member.name.removeprefix("./")))
    for key, members in groupby(files, key=lambda member: split_name(member.name)[0]):
        by_suffix = {}
        for member in members:
            if key in keys or split_name(member.name)[1] in by_suffix:
                raise SampleError(f"{member.name!r}: the key {key!r} is in the file twice")
            by_suffix[split_name(member.name)[1]] = member
        keys.add(key)
        yield key, by_suffix


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile.ReadError unless all bytes after the members are zeros.

    tarfile takes a damaged header, or a block of zeros between members, for the end of the file.
    """
    tar.fileobj.seek(tar.offset)
    start = tar.offset
    while chunk := tar.fileobj.read(CHUNK):
        if rest := chunk.lstrip(b"\0"):
            place = start + len(chunk) - len(rest)
            reason = f"its members end at byte {tar.offset}, but more follows at byte {place}"
            raise tarfile.ReadError(f"{reason}: a damaged header, or several tar files in one")
        start += len(chunk)


def _record(tar: tarfile.TarFile, name: str, key: str, members: dict[str, tarfile.TarInfo]) -> dict:
    """Record of the members of a key."""
    media = next((suffix for suffix in members if suffix.endswith(MEDIA_SUFFIXES)), None)
    if media:
        raise SampleError(f"its {media} is not an image, and only images are read")
    record, content = {}, _content(tar, members.get(".json"))
    if content is not None:
        try:
            record = decode_json(content)
        except (json.JSONDecodeError, RecursionError) as error:
            raise SampleError(f"its .json is not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise SampleError(f"its .json must hold an object, got {record!r:.80}")
    if ".txt" in members and record.get("caption") is None:
        record["caption"] = _content(tar, members[".txt"]).strip()
    if not record:
        raise SampleError(f"no .txt or .json with it, only {', '.join(members)}")
    named = {}
    for suffix, member in sorted(members.items(), key=lambda item: _natural(item[0])):
        if suffix.endswith(SUFFIXES):
            if member.issparse():
                raise SampleError(f"its {suffix} is a sparse member, which is not read")
            member_name = posixpath.normpath(f"/{member.name}").lstrip("/")
            position = Position(member.offset_data, member.size)
            named[posixpath.basename(member_name)] = image_name(name, member_name, position)
    images = list(named.values())
    unread = next((suffix for suffix in members if suffix not in (".json", ".txt")), None)
    if unread and not images:
        raise SampleError(f"its {unread} is not read: images end in {', '.join(SUFFIXES)}")
    places = [place for place in ("image", "images") if record.get(place)]
    for place in places:
        origin = record[place] if isinstance(record[place], list) else [record[place]]
        names = [posixpath.basename(image) if isinstance(image, str) else None for image in origin]
        if named.keys() >= set(names):
            taken = [named[image] for image in names]
        elif len(origin) == len(images):
            taken = images
        else:
            raise SampleError(f"its {place!r} names {len(origin)} images, with it are {', '.join(members)}")
        record[place] = taken if isinstance(record[place], list) else taken[0]
    if images and not places:
        record |= {"image": images[0]} if len(images) == 1 else {"images": images}
    return {"id": key, **{field: value for field, value in record.items() if field != "id" or value is not None}}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> str | None:
    """Text of a member."""
    if member is None:
        return None
    try:
        return tar.extractfile(member).read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SampleError(f"{os.path.basename(member.name)!r} is not UTF-8: {error}") from error


def _natural(name: str) -> str:
    """What names are sorted by so that 2 is before 10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)


def split_name(name: str) -> tuple[str, str]:
    """Key and rest of a member's name, split at the first dot after its folder."""
    folder, slash, base = name.rpartition("/")
    key, dot, rest = base.partition(".")
    return folder + slash + key, f"{dot}{rest}".lower()
