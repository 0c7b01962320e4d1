"""Rows of a table, whatever file they come from, as samples."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from mmgpt.datasets.conversation import place_images
from mmgpt.datasets.image_files import SUFFIXES
from mmgpt.datasets.parsers.fields import field, has, only_known_media, text_list
from mmgpt.datasets.records import find_parser

# What a column can be for, and what it is usually called.
ROLES = {
    "image": ("image", "images", "file_name", "file_names"),
    "question": ("question", "instruction", "prompt"),
    "answer": ("answer", "text", "caption"),
    "id": ("id",),
    "conversation": ("conversation",),
    "dialogue": ("conversations",),
}


def find_columns(found: Sequence[str], named: Mapping[str, str]) -> dict[str, list[str]]:
    """The columns of each of ROLES: those that are named, else the first of its usual names that is there.

    Without any of those, images are in the columns that Hugging Face's imagefolder calls NAME_file_name.

    Args:
        found: the names of all columns.
        named: by role, one name or several with commas between, or '' for none.

    Raises:
        ValueError: a named column is not there, or there is none with answers.
    """
    columns = {}
    for role, usual in ROLES.items():
        columns[role] = [name for name in usual if name in found][:1]
        if role == "image" and not columns[role]:
            columns[role] = [name for name in found if name.endswith(("_file_name", "_file_names"))]
        if role in named:
            columns[role] = named[role].split(",") if named[role] else []
        for name in columns[role]:
            if name not in found:
                raise ValueError(f"no column {name!r} for {role}; columns found: {', '.join(found)}")
    if not columns["answer"] and not columns["dialogue"]:
        usual = ", ".join(ROLES["answer"] + ROLES["dialogue"])
        raise ValueError(f"no column with answers ({usual}, or --columns answer=NAME); columns: {', '.join(found)}")
    return columns


def row_sample(row: Mapping, columns: Mapping[str, Sequence[str]]) -> dict:
    """The sample of one row: images, then a question and its answer, or a dialogue in LLaVA's layout.

    Several images are in several columns, in a list, or in one text with semicolons between. Several answers are in a
    list: everything that counts as right, and none of them the answer to learn, which PickAnswer takes.

    Raises:
        ValueError: a value of another type; names the column.
    """
    only_known_media(row)
    images = [path for name in columns["image"] for path in _paths(row, name)]
    name = "".join(str(row[key]) for key in columns["id"] if row[key] is not None)
    if columns["dialogue"]:
        [key] = columns["dialogue"]
        return find_parser("llava")({"id": name, "images": images, "conversations": row[key]})
    question = "".join(field(row, key) for key in columns["question"] if has(row, key))
    given = [key for key in columns["answer"] if has(row, key)] or columns["answer"][:1]
    answers = [text for key in given for text in text_list(row, key)]
    turn = {"question": question.strip(), "answer": answers[0] if len(answers) == 1 else ""}
    return {"id": name, "images": images, "turns": [turn | ({"answers": answers} if len(answers) > 1 else {})]}


def joined(samples: Sequence[dict]) -> dict:
    """Samples of one turn as one conversation; each image is shown where it first occurs."""
    shown: list[str] = []
    turns = []
    for sample in samples:
        new = [image for image in sample["images"] if image not in shown]
        shown += new
        turns += place_images(sample["turns"], len(new))
    return {"id": samples[0]["id"], "images": shown, "turns": turns}


def as_object(record) -> dict:
    """The record itself.

    Raises:
        ValueError: it is no object.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a record must be an object, got {record!r:.80}")
    return record


@contextmanager
def at(place: str) -> Iterator[None]:
    """Puts the place before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def check_pictures(row: Mapping, columns: Mapping[str, Sequence[str]], named: Mapping[str, str]) -> None:
    """Raises a ValueError when a row names an image file in a column that is not used, and `named` has no images."""
    if columns["image"] or "image" in named:
        return
    used = {name for names in columns.values() for name in names}
    for name, value in row.items():
        if name not in used and isinstance(value, str) and value.lower().endswith(SUFFIXES) and "\n" not in value:
            raise ValueError(
                f"column {name!r} names a picture ({value!r:.80}), but no column is taken for images: name it by "
                f"--columns image={name}, or none by --columns image="
            )


def _paths(row: Mapping, name: str) -> list[str]:
    if row[name] is None:
        return []
    value = field(row, name, (str, list))
    paths = value.split(";") if isinstance(value, str) else text_list(row, name)
    return [path.strip() for path in paths if path.strip()]
