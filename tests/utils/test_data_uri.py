"""Data URIs of any type and with white space; their short names."""

import pytest

from mmgpt.utils.data_uri import is_data_uri, read_data_uri, short_name


@pytest.mark.parametrize("kind", ["image/png", "IMAGE/PNG", "image/jpeg", "text/html", "image/png;charset=x", ""])
def test_a_data_uri_of_any_type_holds_bytes(kind):
    assert read_data_uri(f"data:{kind};base64,aGFsbG8=") == b"hallo"


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,aGFs\nbG8=", "data:image/png;base64,aGFs\r\nbG8=\r\n",
        "data:image/png;base64,\naGFsbG8=\n",
        "data:image/png;base64, aGFs bG8=", "data:image/png;base64,a\tGFsbG8=", " data:image/png;base64,aGFsbG8=\n",
        "data:image/png; base64,aGFsbG8=", "DATA:IMAGE/PNG;BASE64,aGFsbG8=",
        "data:image/png;charset=utf-8;base64 ,aGFsbG8=",
    ],
)  # fmt: skip
def test_white_space_in_a_data_uri_is_passed_over(url):
    assert read_data_uri(url) == b"hallo"


@pytest.mark.parametrize(
    "url, message",
    [
        ("", "data URI"), ("/etc/passwd", "data URI"), ("file:///etc/passwd", "data URI"),
        ("data:image/png", "data URI"),
        ("ftp://host/a.png", "data URI"), ("a.png", "data URI"), ("\\\\host\\a.png", "data URI"),
        ("data:image/png,abc", "in base64"), ("data:image/png;base64x,abc", "in base64"),
        ("data:image/png;base64,abc", "invalid"), ("data:image/png;base64,a*==", "invalid"),
        ("data:image/png;base64,äöü=", "invalid"), ("data:image/png;base64,YW\u00a0Jj", "invalid"),
        ("data:image/png;base64,=", "invalid"), ("data:image/png;base64,_-8=", "invalid"),
        ("data:image/png;base64;x,YWJj", "in base64"), ("base64,YWJj", "data URI"),
    ],
)  # fmt: skip
def test_other_urls_are_not_data_uris(url, message):
    with pytest.raises(ValueError, match=message):
        read_data_uri(url)


def test_a_short_name_has_the_beginning_of_a_data_uri():
    uri = "data:image/png;base64," + "A" * 1000
    assert short_name(uri) == f"{uri[:40]}... (1022 characters)"
    assert short_name("data/1.jpg") == "data/1.jpg"
    assert is_data_uri("DATA:image/png,")
    assert not is_data_uri("data/1.jpg")
