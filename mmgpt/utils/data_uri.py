"""Data URIs: files within a text, data:image/png;base64,... (RFC 2397)."""

import base64
import binascii
import re

BASE64 = re.compile(r";\s*base64\s*$", re.I)
WHITE_SPACE = str.maketrans("", "", " \t\r\n\f")


def is_data_uri(text: str) -> bool:
    """Whether a text is a data URI and not a path."""
    return text[:5].lower() == "data:"


def read_data_uri(uri: str) -> bytes:
    """The bytes in ``data:image/...;base64,...``. The declared type is ignored, since it may be wrong.

    White space within the base64 is ignored: the tool `base64` and MIME encoders (RFC 2045) break its lines.

    Raises:
        ValueError: it is not such a data URI, or its base64 is invalid.
    """
    head, comma, data = uri.strip().partition(",")
    if not comma or not is_data_uri(head):
        raise ValueError("an image must be a data URI: data:image/png;base64,...")
    if not BASE64.search(head):
        raise ValueError("the data URI of an image must be in base64: data:image/png;base64,...")
    try:
        return base64.b64decode(data.translate(WHITE_SPACE), validate=True)
    except (binascii.Error, ValueError) as error:  # b64decode raises ValueError for characters beyond ASCII.
        raise ValueError(f"the base64 of the image is invalid: {error}") from error


def short_name(location: str) -> str:
    """The path of a file, or the beginning of a data URI, for messages and pages."""
    return f"{location[:40]}... ({len(location)} characters)" if is_data_uri(location) else location
