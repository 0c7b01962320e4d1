"""Conversion of table rows, of any file format, into samples."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from mmgpt.datasets.conversation import place_images
from mmgpt.datasets.image_files import SUFFIXES
from mmgpt.datasets.parsers.fields import field, has, refuse_other_media, text_list
from mmgpt.datasets.records import find_parser

# Roles of columns, each with the usual names.
ROLES = {
    "image": ("image", "images", "file_name", "file_names"),
    "question": ("question", "instruction", "prompt"),
    "answer": ("answer", "text", "caption", "completion"),
    "id": ("id",),
    "conversation": ("conversation",),
    "dialogue": ("conversations", "messages", "texts"),
}
# Parser of a dialogue, and the key that it reads, by the name of the column.
LLAVA = "llava", "conversations"
DIALOGUES = {"messages": ("messages", "messages"), "texts": ("the_cauldron", "texts")}


def find_columns(names: Sequence[str], overrides: Mapping[str, str]) -> dict[str, list[str]]:
    """The columns of each of ROLES: those of `overrides`, or else the first of the role's usual names in the table.

    Where a table has neither for images, the columns that Hugging Face's imagefolder calls NAME_file_name are taken.

    Args:
        names: the names of all columns.
        overrides: by role, one column name or several with commas between, or '' for none.

    Raises:
        ValueError: a column of `overrides` is not in the table, or no column has answers.
    """
    columns = {}
    for role, usual in ROLES.items():
        columns[role] = [name for name in usual if name in names][:1]
        if role == "image" and not columns[role]:
            columns[role] = [name for name in names if name.endswith(("_file_name", "_file_names"))]
        if role in overrides:
            columns[role] = overrides[role].split(",") if overrides[role] else []
        for name in columns[role]:
            if name not in names:
                raise ValueError(f"no column {name!r} for {role}; columns: {', '.join(names)}")
    if not columns["answer"] and not columns["dialogue"]:
        usual = ", ".join(ROLES["answer"] + ROLES["dialogue"])
        raise ValueError(f"no column with answers ({usual}, or --columns answer=NAME); columns: {', '.join(names)}")
    return columns


def row_sample(row: Mapping, columns: Mapping[str, Sequence[str]]) -> dict:
    """The sample of one row: images, then a question and its answer, or a dialogue.

    A dialogue is in one column (LLaVA's `conversations`, chat `messages` or the_cauldron's `texts`) or in two (TRL's
    `prompt` and `completion`).

    Several images are in several columns, in a list, or in one text with semicolons between. A list of several answers
    holds all correct ones; the sample has none of them as its `answer`, since PickAnswer draws one during training.

    Raises:
        ValueError: a value has another type; names the column.
    """
    refuse_other_media(row)
    images = []
    for key in columns["image"]:
        if row[key] is not None:
            value = field(row, key, (str, list))
            paths = value.split(";") if isinstance(value, str) else text_list(row, key)
            images += [path.strip() for path in paths if path.strip()]
    name = "".join(str(row[key]) for key in columns["id"] if row[key] is not None)
    if columns["dialogue"]:
        [key] = columns["dialogue"]
        parser, parser_key = DIALOGUES.get(key, LLAVA)
        return find_parser(parser)({"id": name, "images": images, parser_key: row[key]})
    if any(isinstance(row[key], list) for key in columns["question"]):
        [prompt], [completion] = columns["question"], columns["answer"]
        dialogue = {"prompt": row[prompt], "completion": row[completion]}
        return find_parser("messages")({"id": name, "images": images, **dialogue})
    question = "".join(field(row, key) for key in columns["question"] if has(row, key))
    answer_keys = [key for key in columns["answer"] if has(row, key)] or columns["answer"][:1]
    answers = [text for key in answer_keys for text in text_list(row, key)]
    turn = {"question": question.strip(), "answer": answers[0] if len(answers) == 1 else ""}
    return {"id": name, "images": images, "turns": [turn | ({"answers": answers} if len(answers) > 1 else {})]}


def join_turns(samples: Sequence[dict]) -> dict:
    """A conversation of samples of one turn each; each image belongs to the turn where it first occurs."""
    images: list[str] = []
    turns = []
    for sample in samples:
        new = [image for image in sample["images"] if image not in images]
        images += new
        turns += place_images(sample["turns"], len(new))
    return {"id": samples[0]["id"], "images": images, "turns": turns}


def without_nulls(record) -> dict:
    """The keys of a record that are not null. ValueError unless the record is a JSON object."""
    if not isinstance(record, dict):
        raise ValueError(f"a record must be an object, got {record!r:.80}")
    return {key: value for key, value in record.items() if value is not None}


@contextmanager
def at(location: str) -> Iterator[None]:
    """Context manager that puts a location before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error


def check_unused_images(row: Mapping, columns: Mapping[str, Sequence[str]], overrides: Mapping[str, str]) -> None:
    """Raises a ValueError where no column is used for images, no override says so, and a row names an image file."""
    if columns["image"] or "image" in overrides:
        return
    used = {name for names in columns.values() for name in names}
    for name, value in row.items():
        if name not in used and isinstance(value, str) and value.lower().endswith(SUFFIXES) and "\n" not in value:
            raise ValueError(
                f"column {name!r} names an image ({value!r:.80}), but no column is used for images: name it by "
                f"--columns image={name}, or none by --columns image="
            )
