"""Functions that parsers share, for reading the fields of a record."""

from collections import Counter
from collections.abc import Iterable
from string import Formatter

# Keys of media other than images in the records of other projects.
OTHER_MEDIA = ("video", "videos", "video_path", "video_file", "audio", "audios", "audio_path", "audio_file", "speech")
OTHER_MEDIA += ("sound", "wav")
# Keys of images in the records of other projects. Such a record would be trained on without its images.
OTHER_IMAGES = ("image_path", "image_paths", "image_file", "image_url", "img", "imgs", "Image")


def field(record: dict, key: str, kind: type | tuple[type, ...] = str):
    """Value of a key.

    Raises:
        ValueError: the record has no such key (names the keys it has), or the value has another type.
    """
    if key not in record:
        raise ValueError(f"no key {key!r}; keys found: {', '.join(map(str, record)) or 'none'}")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # In Python true is an integer, in JSON it is not.
    if not isinstance(record[key], kind) or (isinstance(record[key], bool) and bool not in kinds):
        choices = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"key {key!r} must be {choices}, got {record[key]!r:.80}")
    return record[key]


def has(record: dict, key: str) -> bool:
    """Whether a record has a value other than null for a key."""
    return record.get(key) is not None


def optional_text(record: dict, key: str) -> str:
    """Text of a key, '' for null. The key is required all the same: a misspelt one would be ignored without notice."""
    return "" if key in record and record[key] is None else field(record, key)


def name_of(record: dict, *keys: str) -> str:
    """Value of the first key that a record has, as text; '' without any."""
    return next((str(record[key]) for key in keys if has(record, key)), "")


def refuse_other_media(record: dict) -> None:
    """Raises a ValueError for a record with a video or a sound, which would be ignored in training."""
    refuse(record, OTHER_MEDIA, "only images are read, under 'image' or 'images'")


def refuse_images(record: dict, keys: Iterable[str] = OTHER_IMAGES) -> None:
    """Raises a ValueError for a record with images under keys that the format does not have."""
    refuse(record, keys, "this format has no images under that key")


def refuse(record: dict, keys: Iterable[str], reason: str) -> None:
    """Raises a ValueError for a record with a value for any of the keys."""
    key = next((key for key in keys if record.get(key)), None)
    if key:
        raise ValueError(f"key {key!r} ({record[key]!r:.80}): {reason}")


def text_list(record: dict, key: str) -> list[str]:
    """Texts of a key, stripped; a single string is a list of one text."""
    value = field(record, key, (str, list))
    texts = [value] if isinstance(value, str) else value
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"key {key!r} must hold strings, got {value!r:.80}")
    return [text.strip() for text in texts]


def image_list(record: dict) -> list[str]:
    """Paths under `image` or `images`, a string or a list; [] without any.

    Raises:
        ValueError: both keys name images, and not the same ones.
    """
    lists = [text_list(record, key) for key in ("image", "images") if has(record, key)]
    if len(lists) == 2 and all(lists) and lists[0] != lists[1]:
        raise ValueError(f"'image' and 'images' name different files: {lists[0]} and {lists[1]!r:.80}")
    return next(filter(None, lists), [])


def fill_pattern(pattern: str, record: dict) -> str:
    """Text of a pattern with keys of the record in the syntax of `str.format`: '{split}/{image_id:012d}.jpg'.

    Raises:
        ValueError: the record does not have a key, or its value does not fit the pattern.
    """
    for _, key, _, _ in Formatter().parse(pattern):
        if key is not None:
            field(record, key, (str, int))
    try:
        return pattern.format_map(record)
    except ValueError as error:
        raise ValueError(f"the record does not fit {pattern!r}: {error}") from error


def add_tags(sample: dict, record: dict, keys: Iterable[str]) -> dict:
    """Sample with keys of its record as `tags`."""
    tags = {key: field(record, key) for key in keys}
    return dict(sample, tags=tags) if tags else sample


def add_system(sample: dict, record: dict, texts: Iterable[str] = ()) -> dict:
    """Sample with the record's `system` text, and further ones after it, where one of them is not empty."""
    texts = [field(record, "system") if has(record, "system") else "", *texts]
    system = "\n\n".join(filter(None, map(str.strip, texts)))
    return dict(sample, system=system) if system else sample


def right_choice(choices: list[str], index: int, key: str) -> str:
    """Choice at an index. Raises a ValueError that names the key of the index if there is none."""
    if not 0 <= index < len(choices):
        raise ValueError(f"key {key!r} is {index}, but there are {len(choices)} choices, counted from 0")
    return choices[index]


def majority(answers: list[str]) -> str:
    """Most frequent answer, the first of those that tie."""
    return Counter(answers).most_common(1)[0][0]
