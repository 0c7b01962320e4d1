"""Records of tar files, and the bytes of their images."""

import json
import re

import pytest

from mmgpt.datasets.shards.images import read_shard_image
from mmgpt.datasets.shards.tar import read_tar
from mmgpt.utils.errors import SampleError, SampleLocation
from tests.helpers.shards import png, records, write_members, write_tar


def read(path):
    return list(read_tar(str(path), path.name))


def test_images_take_the_place_of_those_that_the_json_names(tmp_path):
    rows = records(8)
    actual = read(write_tar(tmp_path / "0.tar", rows))
    assert [record | {"images": []} for record in actual] == [record | {"images": []} for record in rows]
    for record, row in zip(actual, rows, strict=True):
        content = [read_shard_image(str(tmp_path / image)) for image in record["images"]]
        assert content == [png(name) for name in row["images"]]
    assert actual[2]["images"][1].startswith("0.tar::sample-2.1.png@")


def test_captions_and_images_without_names(tmp_path):
    members = [("./a/x.txt", b" A cup.\n"), ("./a/x.jpg", png("x"))]
    members += [("y.json", b'{"caption": "Two.", "image_id": 7}'), ("y.0.png", png("0")), ("y.1.png", png("1"))]
    members += [
        ("y.txt", b"unused"),
        ("._y.jpg", b"hidden"),
        ("z.json", b'{"id": 5, "image": ["a"]}'),
        ("z.PNG", png("z")),
    ]
    x, y, z = read(write_members(tmp_path / "0.tar", members))
    assert x == {"id": "./a/x", "caption": "A cup.", "image": x["image"]}
    assert read_shard_image(str(tmp_path / x["image"])) == png("x")
    assert y == {"id": "y", "caption": "Two.", "image_id": 7, "images": y["images"]}
    assert [read_shard_image(str(tmp_path / image)) for image in y["images"]] == [png("0"), png("1")]
    assert z["id"] == 5
    assert [read_shard_image(str(tmp_path / image)) for image in z["image"]] == [png("z")]


def test_images_are_found_by_their_names_or_in_the_order_of_numbers(tmp_path):
    numbers = [0, 1, 10, *range(2, 10)]
    members = [("a.json", b'{"images": ["x/a.1.png", "x/a.0.png"]}'), ("a.0.png", png("0")), ("a.1.png", png("1"))]
    members += [("b.json", json.dumps({"images": [f"{i}.png" for i in range(11)]}).encode())]
    members += [(f"b.{i}.png", png(str(i))) for i in numbers]
    members += [("c.txt", b"text"), *((f"c.{i}.png", png(str(i))) for i in numbers)]
    a, b, c = read(write_members(tmp_path / "0.tar", members))
    for record, names in ((a, "10"), (b, map(str, range(11))), (c, map(str, range(11)))):
        contents = [read_shard_image(str(tmp_path / image)) for image in record["images"]]
        assert contents == [png(name) for name in names]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("b.json", b"{")], "its .json is not valid JSON: Expecting property name"),
        ([("b.json", b"[1]")], r"its .json must hold an object, got \[1\]"),
        ([("b.json", b'{"a": NaN}')], "not valid JSON: NaN in key 'a'"),
        ([("b.txt", b"\xff")], "'b.txt' is not UTF-8"),
        ([("b.png", b"x")], "no .txt or .json with it, only .png"),
        ([("b.json", b'{"image": "1.png"}')], "its 'image' names 1 images, with it are .json"),
        (
            [("b.json", b'{"images": ["1", "2"]}'), ("b.png", b"x")],
            "its 'images' names 2 images, with it are .json, .png",
        ),
        ([("b.txt", b"a"), ("b.mp4", b"x")], "its .mp4 is not an image"),
        ([("b.txt", b"a"), ("b.npy", b"x")], "its .npy is not read: images end in .jpg"),
        ([("b.txt", b"a"), ("b.txt", b"a")], "'b.txt': the key 'b' is in the file twice"),
        ([("b.txt", b"a"), ("c.txt", b"a"), ("b.png", b"a")], "'b.png': the key 'b' is in the file twice"),
    ],
)
def test_an_error_names_shard_record_and_key(tmp_path, members, reason):
    path = write_members(tmp_path / "0.tar", [("a.txt", b"first"), ("a.png", png("a")), *members])
    first, *others = read(path)
    assert first["id"] == "a"
    (error,) = (record for record in others if isinstance(record, SampleError))
    assert re.search(reason, str(error))
    number = 3 if reason.startswith("'b.png'") else 1
    assert error.location == SampleLocation(file=str(path), record=number, id="b")


def test_the_records_after_a_broken_one_are_read(tmp_path):
    path = write_members(tmp_path / "0.tar", [("a.json", b"{"), ("a.png", png("a")), ("b.txt", b"b"), ("a.txt", b"a")])
    broken, record, again = read(path)
    assert record == {"id": "b", "caption": "b"}
    assert (broken.location.id, again.location.id, again.location.record) == ("a", "a", 2)


def test_a_damaged_or_compressed_file_is_an_error(tmp_path):
    path = write_tar(tmp_path / "0.tar", records(3))
    content = path.read_bytes()
    (record,) = (i for i in range(0, len(content), 512) if content[i:].startswith(b"sample-2.json"))
    for damaged, reason in (
        (content[:record] + b"?" * 512 + content[record + 512 :], f"more follows at byte {record}"),
        (content[: record + 520], "unexpected end of data"),
        (b"\x1f\x8b" + content, "not a readable tar file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(SampleError, match=reason) as raised:
            read(path)
        assert raised.value.location.file == str(path)


def test_anything_after_the_end_is_an_error(tmp_path):
    path = write_tar(tmp_path / "0.tar", records(3))
    content = path.read_bytes()
    path.write_bytes(content + bytes(3 << 20))
    assert len(read(path)) == 3
    (record,) = (i for i in range(0, len(content), 512) if content[i:].startswith(b"sample-2.json"))
    hole = content[:record] + bytes(1024) + content[record + 1024 :]
    for damaged, place in ((content + bytes(2 << 20) + content, len(content) + (2 << 20)), (hole, record + 1024)):
        path.write_bytes(damaged)
        with pytest.raises(SampleError, match=f"0.tar'.*but more follows at byte {place}: .*several tar files in one"):
            read(path)


def test_a_shard_that_has_become_shorter_is_an_error(tmp_path):
    path = write_members(tmp_path / "0.tar", [("a.json", json.dumps({"image": "x"}).encode()), ("a.png", png("a"))])
    (record,) = read(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="the shard ends before the image does"):
        read_shard_image(str(tmp_path / record["image"]))
