"""Records of WebDataset shards: tar files in which members with the same key are one record."""

import json
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, groupby
from typing import BinaryIO

from mmgpt.datasets.image_files import SUFFIXES, is_hidden
from mmgpt.datasets.records import decode_json
from mmgpt.utils.errors import SampleError, SampleLocation, located

from .images import Position, image_name

MEDIA_SUFFIXES = tuple(".mp4 .webm .avi .mov .mkv .wav .mp3 .flac .ogg .opus .m4a .heic .svg".split())
# Which compression is read, for messages about damaged files.
UNCOMPRESSED, COMPRESSED = "a compressed one is not read", "or compressed otherwise than by gzip, bzip2 or xz"
CHUNK = 1 << 20  # bytes that are read at a time after the end


def read_tar(path: str, name: str) -> Iterator[dict | SampleError]:
    """Records of a tar file: `key.json`, `key.txt`, and the images of the same key (webdataset's format).

    A record has the keys of the JSON, the text as `caption` unless the JSON has one, and the key as `id` unless it has
    one. The images take the place of those that the JSON names: by their names where all of these are in the file, and
    otherwise in the order of their names, in which 2 is before 10. A JSON without any gets `image`, or `images` where
    there are several. Links and hidden files are skipped. Of an image only the position is read.

    In the place of a broken record there is the error about it: broken JSON, another number of images than the JSON
    names, another medium, a member or a key that is there twice, no JSON or text.

    Args:
        path: the file; it must not be compressed.
        name: its path from the image folder, for the names of images.

    Raises:
        SampleError: the file is damaged.
    """
    with tar_errors(path, UNCOMPRESSED), tarfile.open(path, "r:") as tar:

        def read(member: tarfile.TarInfo) -> bytes:
            return tar.extractfile(member).read()

        def image(member: tarfile.TarInfo, member_name: str) -> str:
            return image_name(name, member_name, Position(member.offset_data, member.size))

        yield from _records(tar, path, UNCOMPRESSED, members_by_key(tar), read, image)
        tar.fileobj.seek(tar.offset)
        _check_end(tar.fileobj, tar.offset)


def stream_tar(file: BinaryIO, path: str, name: str) -> Iterator[tuple[dict | SampleError, dict[str, bytes]]]:
    """Records of a tar file that is read once from its beginning to its end, each with the bytes of its images by name.

    The records are those of `read_tar`, with other names of images.

    Args:
        file: the tar file, which may be compressed.
        path: its path or address, for messages.
        name: its name, for the names of images.

    Raises:
        SampleError: the file is damaged.
    """
    contents: dict[tarfile.TarInfo, bytes] = {}
    images: dict[str, bytes] = {}
    with tar_errors(path, COMPRESSED), tarfile.open(fileobj=file, mode="r|*") as tar:

        def read_ahead(members: Iterator[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
            for member in members:
                contents[member] = tar.extractfile(member).read()
                yield member

        def image(member: tarfile.TarInfo, member_name: str) -> str:
            member_name = image_name(name, member_name, Position(0, member.size))
            images[member_name] = contents[member]
            return member_name

        groups = members_by_key(tar, read_ahead)
        for record in _records(tar, path, COMPRESSED, groups, contents.__getitem__, image):
            yield record, dict(images)
            images.clear()
            # The last one is of the next key, at which the members of this key have ended.
            for member in list(contents)[:-1]:
                del contents[member]
        _check_end(tar.fileobj, tar.fileobj.tell())


@contextmanager
def tar_errors(path: str, compression: str, record: int | None = None) -> Iterator[None]:
    """Context manager that turns errors of tarfile into errors about a file; a text says which compression is read."""
    with located(SampleLocation(file=path, record=record)):
        try:
            yield
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise SampleError(f"not a readable tar file: {error} ({compression})") from error


def members_by_key(
    tar: tarfile.TarFile, read: Callable[[Iterator], Iterator] = iter
) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Key and members of consecutive files of a tar file with one key, which ends at the first dot after the folder.

    Args:
        read: function of the files, which reads them as they come.
    """
    files = (member for member in tar if member.isfile() and not is_hidden(member.name.removeprefix("./")))
    for key, members in groupby(read(files), key=lambda member: split_name(member.name)[0]):
        yield key, list(members)


def _check_end(file: BinaryIO, start: int) -> None:
    """tarfile.ReadError unless all bytes of the file after the members, from `start` on, are zeros.

    tarfile takes a damaged header, or a block of zeros between members, for the end of the file.
    """
    end = start
    while chunk := file.read(CHUNK):
        if rest := chunk.lstrip(b"\0"):
            place = start + len(chunk) - len(rest)
            reason = f"its members end at byte {end}, but more follows at byte {place}"
            raise tarfile.ReadError(f"{reason}: a damaged header, or several tar files in one")
        start += len(chunk)


def _records(
    tar: tarfile.TarFile,
    path: str,
    compression: str,
    groups: Iterator[tuple[str, list[tarfile.TarInfo]]],
    read: Callable,
    image: Callable,
) -> Iterator[dict | SampleError]:
    """Records of the members of each key, or errors about them.

    Args:
        compression: see `tar_errors`.
        groups: see `members_by_key`.
        read: function from a member to its bytes.
        image: function from a member and its normalized name to the name of an image.
    """
    keys = set()
    for number in count():
        with tar_errors(path, compression, number):
            group = next(groups, None)
        if group is None:
            return
        key, members = group
        with tar_errors(path, compression, number):
            try:
                with located(SampleLocation(file=path, record=number, id=key)):
                    by_suffix = {split_name(member.name)[1]: member for member in members}
                    if key in keys or len(by_suffix) < len(members):
                        raise SampleError(f"{members[-1].name!r}: the key {key!r} is in the file twice")
                    keys.add(key)
                    record = _record(key, by_suffix, read, image)
            except SampleError as error:
                record = error
        yield record
        tar.members = []  # tarfile keeps all of them otherwise


def _record(key: str, members: dict[str, tarfile.TarInfo], read: Callable, image: Callable) -> dict:
    """Record of the members of a key by the rest of their names; the functions are those of `_records`."""
    media = next((suffix for suffix in members if suffix.endswith(MEDIA_SUFFIXES)), None)
    if media:
        raise SampleError(f"its {media} is not an image, and only images are read")
    texts = {}
    for suffix in (".json", ".txt"):
        if suffix in members:
            try:
                texts[suffix] = read(members[suffix]).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise SampleError(f"{posixpath.basename(members[suffix].name)!r} is not UTF-8: {error}") from error
    record = {}
    if ".json" in texts:
        try:
            record = decode_json(texts[".json"])
        except (json.JSONDecodeError, RecursionError) as error:
            raise SampleError(f"its .json is not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise SampleError(f"its .json must hold an object, got {record!r:.80}")
    if ".txt" in texts and record.get("caption") is None:
        record["caption"] = texts[".txt"].strip()
    if not record:
        raise SampleError(f"no .txt or .json with it, only {', '.join(members)}")
    named = {}
    for suffix, member in sorted(members.items(), key=lambda item: _natural(item[0])):
        if suffix.endswith(SUFFIXES):
            if member.issparse():
                raise SampleError(f"its {suffix} is a sparse member, which is not read")
            member_name = posixpath.normpath(f"/{member.name}").lstrip("/")
            named[posixpath.basename(member_name)] = image(member, member_name)
    images = list(named.values())
    unread = next((suffix for suffix in members if suffix not in (".json", ".txt")), None)
    if unread and not images:
        raise SampleError(f"its {unread} is not read: images end in {', '.join(SUFFIXES)}")
    places = [place for place in ("image", "images") if record.get(place)]
    for place in places:
        origin = record[place] if isinstance(record[place], list) else [record[place]]
        names = [posixpath.basename(item) if isinstance(item, str) else None for item in origin]
        if named.keys() >= set(names):
            taken = [named[item] for item in names]
        elif len(origin) == len(images):
            taken = images
        else:
            raise SampleError(f"its {place!r} names {len(origin)} images, with it are {', '.join(members)}")
        record[place] = taken if isinstance(record[place], list) else taken[0]
    if images and not places:
        record |= {"image": images[0]} if len(images) == 1 else {"images": images}
    return {"id": key, **{field: value for field, value in record.items() if field != "id" or value is not None}}


def _natural(name: str) -> str:
    """What names are sorted by so that 2 is before 10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(20), name)


def split_name(name: str) -> tuple[str, str]:
    """Key and rest of a member's name, split at the first dot after its folder."""
    folder, slash, base = name.rpartition("/")
    key, dot, rest = base.partition(".")
    return folder + slash + key, f"{dot}{rest}".lower()
