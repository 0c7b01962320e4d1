"""JSON files are read with messages that name them."""

import pytest

from mmgpt.utils.json_file import read_json_object


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x.json is not valid JSON: it is empty"),
        (b"{", "x.json is not valid JSON: .*line 1"),
        (b"\xff{}", "x.json is not valid JSON: "),
        (b"[" * 100_000 + b"]" * 100_000, "x.json is not valid JSON: .*recursion"),
        (b"[1]", "x.json holds a list, not a JSON object"),
    ],
)
def test_files_without_a_json_object_are_refused_by_name(tmp_path, content, words):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_json_object(tmp_path / "x.json")


def test_an_object_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json_object(tmp_path / "x.json") == {"a": 1}
