"""Records of WebDataset shards: tar files in which members with the same key are one record."""

import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from itertools import groupby

from mmgpt.datasets.image_files import SUFFIXES, is_hidden
from mmgpt.datasets.records import decode_json
from mmgpt.utils.errors import SampleError, SampleLocation, located

from .images import Position, image_name

MEDIA_SUFFIXES = tuple(".mp4 .webm .avi .mov .mkv .wav .mp3 .flac .ogg .opus .m4a .heic .svg".split())
END = bytes(tarfile.BLOCKSIZE)  # a block of zeros ends a tar file


def read_tar(path: str, name: str) -> Iterator[dict]:
    """Records of a tar file: `key.json`, `key.txt`, and the images of the same key (webdataset's format).

    A record has the keys of the JSON, the text as `caption` unless the JSON has one, and the key as `id` unless it has
    one. The images take the place of those that the JSON names, in the order of the file; a JSON without any gets
    `image`, or `images` where there are several. Links and hidden files are skipped. Of an image only the position is
    read.

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
                # tarfile takes a damaged header for the end of the file.
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(len(END)) not in (END, b""):
                    raise tarfile.ReadError(f"no header of a member at byte {tar.offset}")
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
    images = []
    for suffix, member in members.items():
        if suffix.endswith(SUFFIXES):
            if member.issparse():
                raise SampleError(f"its {suffix} is a sparse member, which is not read")
            member_name = posixpath.normpath(f"/{member.name}").lstrip("/")
            images.append(image_name(name, member_name, Position(member.offset_data, member.size)))
    unread = next((suffix for suffix in members if suffix not in (".json", ".txt")), None)
    if unread and not images:
        raise SampleError(f"its {unread} is not read: images end in {', '.join(SUFFIXES)}")
    places = [place for place in ("image", "images") if record.get(place)]
    for place in places:
        origin = record[place] if isinstance(record[place], list) else [record[place]]
        if len(origin) != len(images):
            raise SampleError(f"its {place!r} names {len(origin)} images, with it are {', '.join(members)}")
        record[place] = images if isinstance(record[place], list) else images[0]
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


def split_name(name: str) -> tuple[str, str]:
    """Key and rest of a member's name, split at the first dot after its folder."""
    folder, slash, base = name.rpartition("/")
    key, dot, rest = base.partition(".")
    return folder + slash + key, f"{dot}{rest}".lower()
