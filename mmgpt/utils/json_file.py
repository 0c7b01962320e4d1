"""Reader of JSON files, whose error messages name the file."""

import json
import os
from pathlib import Path


def read_json_object(path: str | os.PathLike) -> dict:
    """The object in a JSON file.

    Raises:
        ValueError: the file is empty, is not JSON, is nested too deeply for Python, or does not hold an object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not os.path.getsize(path) else str(error)
        raise ValueError(f"{path} is not valid JSON: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content
