"""Records of Parquet and Arrow files, and the bytes of their images."""

import pytest

from mmgpt.datasets.shards.images import read_shard_image
from mmgpt.datasets.shards.tables import read_arrow, read_parquet
from mmgpt.utils.errors import SampleError
from tests.helpers.shards import png

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (requirements/parquet.txt)")
COUNT = 150
CODECS = ("none", "snappy", "zstd", "gzip", "brotli", "lz4")


@pytest.fixture(scope="module")
def contents():
    """Bytes of the images of all rows, some of which come twice."""
    images = [png(str(i)) for i in range(COUNT)]
    images[7] = images[120] = images[3]
    return images


@pytest.fixture(scope="module")
def rows(contents):
    """Rows with structs, lists of structs, bytes, nulls, and texts in structs."""
    return [
        {
            "id": str(i),
            "image": {"bytes": content, "path": None} if i % 5 else None,
            "images": [{"bytes": content, "path": "a"}, {"bytes": None, "path": "b.png"}][: i % 3] if i % 7 else None,
            "photo": content,
            "messages": [{"role": "user", "content": [{"type": "image", "text": None}]}],
        }
        for i, content in enumerate(contents)
    ]


def check(folder, records, contents):
    """Compares records with the rows that were written."""
    assert len(records) == COUNT
    for i, (record, content) in enumerate(zip(records, contents, strict=True)):
        assert record["id"] == str(i)
        assert record["messages"] == [{"role": "user", "content": [{"type": "image"}]}]
        assert read_shard_image(f"{folder}/{record['photo']}") == content
        assert (record["image"] is None) == (i % 5 == 0)
        if record["image"]:
            assert read_shard_image(f"{folder}/{record['image']}") == content
        assert (record["images"] is None) == (i % 7 == 0)
        if record["images"]:
            assert read_shard_image(f"{folder}/{record['images'][0]}") == content
            assert record["images"][1:] == ["b.png"][: i % 3 - 1]


# Small pages, and dictionaries that end within the column, as they do in files with many images.
OPTIONS = dict(row_group_size=70, data_page_size=20000, dictionary_pagesize_limit=50000)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_images_of_parquet_are_found_in_their_pages(tmp_path, rows, contents, codec, version, dictionary):
    from pyarrow.parquet import write_table

    options = OPTIONS | dict(compression=codec, data_page_version=version, use_dictionary=dictionary)
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "0.parquet", **options)
    records = list(read_parquet(str(tmp_path / "0.parquet"), "0.parquet"))
    check(tmp_path, records, contents)
    assert records[9]["photo"].startswith("0.parquet::9/photo@")
    assert records[8]["images"][0].startswith("0.parquet::8/images/0@")
    # In the second version, pages that compression does not make smaller are not compressed.
    if version == "1.0":
        assert (f"/{codec}" in records[9]["photo"]) == (codec != "none")


def test_images_of_parquet_with_their_lengths_apart(tmp_path, rows, contents):
    from pyarrow.parquet import write_table

    encoding = {name: "DELTA_LENGTH_BYTE_ARRAY" for name in ("image.bytes", "images.list.element.bytes", "photo")}
    content = pyarrow.Table.from_pylist(rows)
    write_table(content, tmp_path / "0.parquet", use_dictionary=False, column_encoding=encoding)
    check(tmp_path, list(read_parquet(str(tmp_path / "0.parquet"), "0.parquet")), contents)
    encoding = {"photo": "DELTA_BYTE_ARRAY"}
    write_table(content, tmp_path / "1.parquet", use_dictionary=False, column_encoding=encoding)
    with pytest.raises(SampleError, match=r"1.parquet', record 0: its bytes are encoded in pieces \(DELTA_BYTE_ARRAY"):
        list(read_parquet(str(tmp_path / "1.parquet"), "1.parquet"))


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_images_of_arrow_files(tmp_path, rows, contents, kind):
    content, path = pyarrow.Table.from_pylist(rows), tmp_path / "0.arrow"
    with (pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file)(path, content.schema) as file:
        file.write_table(content, max_chunksize=40)
    check(tmp_path, list(read_arrow(str(path), path.name)), contents)


def test_compressed_arrow_files_are_refused(tmp_path, rows):
    content, options = pyarrow.Table.from_pylist(rows), pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_file(tmp_path / "0.arrow", content.schema, options=options) as file:
        file.write_table(content)
    with pytest.raises(SampleError, match="0.arrow': the file is compressed: write it by"):
        list(read_arrow(str(tmp_path / "0.arrow"), "0.arrow"))


@pytest.mark.parametrize("item", [None, {"bytes": None, "path": None}])
def test_items_that_are_no_images_are_an_error(tmp_path, item):
    from pyarrow.parquet import write_table

    image = {"bytes": png("a"), "path": None}
    content = pyarrow.Table.from_pylist([{"images": [image]}] * 70 + [{"images": [image, item, image]}])
    write_table(content, tmp_path / "0.parquet")
    with pyarrow.ipc.new_stream(tmp_path / "0.arrow", content.schema) as file:
        file.write_table(content)
    for read, name in ((read_parquet, "0.parquet"), (read_arrow, "0.arrow")):
        *good, error = read(str(tmp_path / name), name)
        assert len(good) == 70
        reason = "item 1 of column 'images' has neither bytes nor path"
        assert str(error) == f"file '{tmp_path / name}', record 70: {reason}"


def test_bytes_of_fixed_size_are_text(tmp_path):
    from pyarrow.parquet import write_table

    columns = [pyarrow.array([b"\x01\xff", None], pyarrow.binary(2)), pyarrow.array([png("a"), png("b")])]
    hashes = pyarrow.array([[b"\x00\x0a"], []], pyarrow.list_(pyarrow.binary(2)))
    table = pyarrow.Table.from_arrays([*columns, hashes], ["md5", "image", "hashes"])
    write_table(table, tmp_path / "0.parquet")
    with pyarrow.ipc.new_stream(tmp_path / "0.arrow", table.schema) as file:
        file.write_table(table)
    for read, name in ((read_parquet, "0.parquet"), (read_arrow, "0.arrow")):
        first, second = read(str(tmp_path / name), name)
        assert (first["md5"], first["hashes"], second["md5"]) == ("01ff", ["000a"], None)
        assert read_shard_image(f"{tmp_path}/{second['image']}") == png("b")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"messages": [{"image": b"x"}]},
            "column 'messages' is list<.*images are read from columns of bytes, of structs",
        ),
        ({"images": [[b"x"]]}, "column 'images' is list<"),
    ],
)
def test_bytes_in_other_columns_are_an_error(tmp_path, row, reason):
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist([row]), tmp_path / "0.parquet")
    with pytest.raises(SampleError, match=f"0.parquet': {reason}"):
        list(read_parquet(str(tmp_path / "0.parquet"), "0.parquet"))


def test_damaged_files_are_an_error(tmp_path, rows):
    from pyarrow.parquet import read_metadata, write_table

    path = tmp_path / "0.parquet"
    write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=70, compression="snappy")
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(SampleError, match="0.parquet': not a readable Parquet file"):
        list(read_parquet(str(path), path.name))
    # The first page of the second row group has no header.
    path.write_bytes(content)
    start = read_metadata(path).row_group(1).column(0).dictionary_page_offset
    path.write_bytes(content[:start] + bytes(20) + content[start + 20 :])
    with pytest.raises(SampleError, match="0.parquet', record 70: not a readable Parquet file"):
        list(read_parquet(str(path), path.name))
    (tmp_path / "0.arrow").write_bytes(b"no Arrow file")
    with pytest.raises(SampleError, match="0.arrow': not a readable Arrow file"):
        list(read_arrow(str(tmp_path / "0.arrow"), "0.arrow"))
