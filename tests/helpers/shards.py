"""The same samples as JSON lines with loose images, and in shards with the images inside."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

IMAGE = {"type": "image"}


def png(name):
    """Bytes of a PNG image of noise, which the name decides."""
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (32, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def records(count, first=0):
    """Records in our schema: in turn with no image, one, two of which one is within the text, and two turns."""
    made = []
    for i in range(first, first + count):
        text = {"type": "text", "text": f"what is the circle {i}"}
        one = {"question": f"what is {i}", "answer": f"a red circle {i}"}
        two = {"question": [IMAGE, text, IMAGE], "answer": "blue"}
        images = [f"{i}_{j}.png" for j in range((0, 1, 2, 1)[i % 4])]
        made.append({"id": f"sample-{i}", "images": images, "turns": ([one], [one], [two], [one, one])[i % 4]})
    return made


def write_lines(folder, rows):
    """Writes train.jsonl and images, and returns the arguments of their dataset."""
    (folder / "images").mkdir(parents=True)
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for row in rows:
        for name in row["images"]:
            (folder / "images" / name).write_bytes(png(name))
    return dict(ann_file=str(folder / "train.jsonl"), data_prefix=dict(img=str(folder / "images")))


def write_members(path, members):
    """Writes a tar file of pairs of a name and a content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_tar(path, rows):
    """Writes records as a shard of WebDataset."""
    members = []
    for row in rows:
        members.append((f"{row['id']}.json", json.dumps(row).encode()))
        members += [(f"{row['id']}.{i}.png", png(name)) for i, name in enumerate(row["images"])]
    return write_members(path, members)


def table(rows):
    """pyarrow's table of records, as `datasets` would have it; skips the test where pyarrow is missing."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (requirements/parquet.txt)")
    lines = []
    for row in rows:
        images = [{"bytes": png(name), "path": name} for name in row["images"]]
        questions = [turn["question"] for turn in row["turns"]]
        contents = [[{"type": "text", "text": text}] if isinstance(text, str) else text for text in questions]
        turns = [{**turn, "question": parts} for turn, parts in zip(row["turns"], contents, strict=True)]
        lines.append({**row, "images": images, "turns": turns})
    return pyarrow.Table.from_pylist(lines)


def write_parquet(path, rows, **options):
    """Writes records as a Parquet file."""
    content = table(rows)
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(content, path, **options)
    return path


def write_arrow(path, rows):
    """Writes records as a folder of `Dataset.save_to_disk`, and returns the folder."""
    content = table(rows)
    import pyarrow

    path.mkdir(parents=True)
    with pyarrow.ipc.new_stream(path / "data-00000-of-00001.arrow", content.schema) as file:
        file.write_table(content)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return path
