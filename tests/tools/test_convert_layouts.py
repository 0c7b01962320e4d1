"""The layouts that tools/dataset_converters/convert.py reads, right and wrong files of each."""

import io
import json
import re
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.converting import png_bytes, sample, write
from tests.helpers.corrupt_data import encoded
from tests.helpers.parsing import DATA, IMAGE

# ---- tables


TABLE = """image,question,answer,id
1.jpg,"What, do
you see?",A cup.,first

"1.jpg; 2.jpg",Same?,No.,
,Name a river.,"The ""Rhine"".",
"""


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_of_every_separator_are_read(tmp_path, convert, separator, encoding):
    text = re.sub(r",(?! )", separator, TABLE)
    if separator == ";":
        text = text.replace(" 2.jpg", "2.jpg")
    assert convert("csv", write(tmp_path / "photos.csv", text, encoding=encoding)) == [
        sample("What, do\nyou see?", "A cup.", "1.jpg", name="first"),
        sample("Same?", "No.", "1.jpg", "2.jpg"),
        sample("Name a river.", 'The "Rhine".'),
    ]


def test_columns_are_chosen_by_option(tmp_path, convert):
    path = write(tmp_path / "a.csv", "left,right,said\n1.jpg,2.jpg,Two cups.\n")
    columns = ["--columns", "image=left,right", "answer=said"]
    assert convert("csv", path, *columns) == [sample("", "Two cups.", "1.jpg", "2.jpg")]
    asked = convert("csv", path, *columns, "--question", "What is it?", "--force")
    assert asked == [sample("What is it?", "Two cups.", "1.jpg", "2.jpg")]


def test_rows_of_one_conversation_are_its_turns(tmp_path, convert):
    rows = ["1.jpg,a?,a,x", "1.jpg,b?,b,x", ",alone?,yes,", "2.jpg;2.jpg,c?,c,x", ",y?,y,y"]
    path = write(tmp_path / "a.csv", "\n".join(["image,question,answer,conversation", *rows]))
    alone, joined, other = convert("csv", path)
    assert alone == sample("alone?", "yes")
    assert other == sample("y?", "y", name="y")
    assert joined["id"] == "x"
    assert joined["images"] == ["1.jpg", "2.jpg", "2.jpg"]
    questions = [turn["question"] for turn in joined["turns"]]
    text = {"type": "text"}
    assert questions == [[IMAGE, text | {"text": "a?"}], "b?", [IMAGE, IMAGE, text | {"text": "c?"}]]
    assert [turn["answer"] for turn in joined["turns"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,question,reply\n1.jpg,a,b\n",
            r"a.csv: no column with answers \(answer, text, caption, comp.*columns: im",
        ),
        ("image,answer\n1.jpg,b\n2.jpg\n", "a.csv, row 3: 1 cells, but 2 headings: image, answer"),
        ("image,answer\n1.jpg,b,c\n", "a.csv, row 2: 3 cells, but 2 headings"),
        ('image,answer\n1.jpg,"b\n2.jpg,c\n', "a.csv, after row 0: unexpected end of data"),
        ("image,answer,answer\n1.jpg,b,c\n", "a.csv: two columns of the same name: image, answer, answer"),
        ("image,answer\n", "a.csv: nothing to convert"),
        ("", "a.csv: nothing to convert"),
    ],
)
def test_errors_in_tables_are_located(tmp_path, convert, text, message):
    with pytest.raises(ValueError, match=message):
        convert("csv", write(tmp_path / "a.csv", text))
    assert not (tmp_path / "out").exists()


def test_a_table_in_another_encoding_is_refused(tmp_path, convert):
    path = write(tmp_path / "a.csv", "image,answer\n1.jpg,na\xefve\n", encoding="latin-1")
    with pytest.raises(ValueError, match="a.csv, after row 0: 'utf-8' codec.*expected is CSV in UTF-8"):
        convert("csv", path)


# ---- folders


def test_images_with_captions_beside_them(tmp_path, convert):
    for name in ("b.PNG", "in/a.png"):
        (tmp_path / "photos" / "in").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png_bytes())
        write((tmp_path / "photos" / name).with_suffix(".txt"), f"A caption of {name}.\n", encoding="utf-8-sig")
    write(tmp_path / "photos" / "README.txt", "no caption")
    assert convert("folder", tmp_path / "photos") == [
        sample("", "A caption of b.PNG.", "b.PNG", name="b"),
        sample("", "A caption of in/a.png.", "in/a.png", name="in/a"),
    ]
    (tmp_path / "photos" / "b.txt").unlink()
    with pytest.raises(ValueError, match="1 of 2 images in .*photos have no caption.*b.PNG .looked for b.txt"):
        convert("folder", tmp_path / "photos", out="other.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: nothing to convert"):
        convert("folder", tmp_path / "empty", out="other.jsonl")


def test_tables_of_imagefolder(tmp_path, convert):
    write(tmp_path / "photos/train/metadata.csv", "file_name,text\n1.jpg,One.\nin/2.jpg,Two.\n")
    write(tmp_path / "photos/test/metadata.jsonl", '{"file_name": "3.jpg", "caption": ["Three.", "3."], "n": 3}\n')
    assert convert("folder", tmp_path / "photos", "--question", "What?") == [
        sample("What?", "", "test/3.jpg", answers=["Three.", "3."]),
        sample("What?", "One.", "train/1.jpg"),
        sample("What?", "Two.", "train/in/2.jpg"),
    ]


def test_hidden_files_in_a_folder_are_skipped(tmp_path, convert):
    for name in ("1.jpg", "._1.jpg", "__MACOSX/1.jpg", ".cache/2.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png_bytes())
    write(tmp_path / "photos/1.txt", "One.")
    write(tmp_path / "photos/._1.txt", "macOS")
    assert convert("folder", tmp_path / "photos") == [sample("", "One.", "1.jpg", name="1")]
    write(tmp_path / "photos/.cache/metadata.csv", "file_name,text\n2.jpg,Two.\n")
    assert len(convert("folder", tmp_path / "photos", out="again.jsonl")) == 1


def test_images_of_less_usual_formats_are_found(tmp_path, convert):
    names = ["a.ppm", "b.jp2", "c.avif", "d.JPEG", "e.tif"]
    for name in names:
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"of any format")
        write((tmp_path / "photos" / name).with_suffix(".txt"), name)
    assert [each["images"] for each in convert("folder", tmp_path / "photos")] == [[name] for name in names]


@pytest.mark.parametrize(
    ("table", "images"),
    [
        ('{"file_names": ["1.jpg", "2.jpg"], "text": "Both."}', ["1.jpg", "2.jpg"]),
        ('{"left_file_name": "1.jpg", "right_file_name": "2.jpg", "text": "Both."}', ["1.jpg", "2.jpg"]),
        ('{"shown_file_names": ["2.jpg"], "text": "One."}', ["2.jpg"]),
        ('{"image": null, "file_name": "1.jpg", "text": "One."}', ["1.jpg"]),
        ('{"image": null, "text": "One."}', None),
    ],
)
def test_imagefolder_with_several_images_a_row(tmp_path, convert, table, images):
    write(tmp_path / "photos/metadata.jsonl", table)
    (tmp_path / "photos/1.jpg").write_bytes(png_bytes())
    if images is None:
        with pytest.raises(ValueError, match="photos holds 1 images, the first .*1.jpg, but metadata.jsonl names none"):
            convert("folder", tmp_path / "photos")
    else:
        assert convert("folder", tmp_path / "photos")[0]["images"] == images


def test_images_without_a_column_are_refused(tmp_path, convert):
    path = write(tmp_path / "a.csv", "photo,answer\n1.jpg,One.\n")
    with pytest.raises(ValueError, match=r"row 2: column 'photo' names an image \('1.jpg'\), but no column is used"):
        convert("csv", path)
    assert convert("csv", path, "--columns", "image=photo")[0]["images"] == ["1.jpg"]
    assert convert("csv", path, "--columns", "image=", out="text.jsonl")[0]["images"] == []
    with pytest.raises(ValueError, match=r"key 'video' \('1.mp4'\): only images are read"):
        convert("csv", write(tmp_path / "b.csv", "video,answer\n1.mp4,One.\n"), out="video.jsonl")


def test_null_in_a_row(tmp_path, convert):
    lines = [
        '{"file_name": "1.jpg", "question": null, "answer": "One.", "id": null}',
        '{"file_name": null, "answer": "Two."}',
    ]
    write(tmp_path / "photos/metadata.jsonl", "\n".join(lines))
    assert convert("folder", tmp_path / "photos") == [sample("", "One.", "1.jpg"), sample("", "Two.")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "1.jpg"}', "metadata.jsonl, record 1: no column with answers"),
        ('{"file_name": 1, "text": "a"}', "metadata.jsonl, record 1: key 'file_name' must be str or list, got 1"),
        ('{"file_name": "1.jpg", "text": null}', "metadata.jsonl, record 1: no column with answers"),
        ('["1.jpg"]', "metadata.jsonl, record 1: a record must be an object"),
        ('{"file_name": "1.jpg", "text": NaN}', "metadata.jsonl', record 1: not valid JSON: NaN in key 'text'"),
    ],
)
def test_errors_in_metadata_are_located(tmp_path, convert, line, message):
    write(tmp_path / "photos/metadata.jsonl", f'{{"file_name": "0.jpg", "text": "a"}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        convert("folder", tmp_path / "photos")


# ---- COCO


CAPTIONS = {
    "info": {},
    "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 7, "file_name": "7.jpg"}, {"id": 5, "file_name": "5.jpg"}],
    "annotations": [
        {"image_id": 7, "id": 1, "caption": "A cup."},
        {"image_id": 9, "id": 2, "caption": "A bus. "},
        {"image_id": 7, "id": 3, "caption": "A white cup."},
    ],
}


def test_captions_of_coco_are_grouped_by_image(tmp_path, convert):
    assert convert("coco", write(tmp_path / "captions.json", json.dumps(CAPTIONS))) == [
        sample("", "A bus.", "9.jpg", name="9", answers=["A bus."]),
        sample("", "", "7.jpg", name="7", answers=["A cup.", "A white cup."]),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 8, "caption": "a"}]}, "annotations, record 0: no image with the id 8"),
        ({"annotations": [{"image_id": 7}]}, "annotations, record 0: no key 'caption'"),
        ({"annotations": ["a"]}, "annotations, record 0: a record must be an object, got 'a'"),
        ({"annotations": None}, "captions.json: key 'annotations' must be list, got None"),
        ({"images": [{"id": 7}]}, "images, record 0: no key 'file_name'"),
        ({"images": [{"id": [7], "file_name": "a"}]}, "images, record 0: key 'id' must be int or str"),
    ],
)
def test_errors_in_captions_of_coco_are_located(tmp_path, convert, change, message):
    with pytest.raises(ValueError, match=message):
        convert("coco", write(tmp_path / "captions.json", json.dumps(CAPTIONS | change)))


def test_karpathys_list_is_refused_as_cocos_file(convert):
    with pytest.raises(ValueError, match="expected an object with images and annotations, got list"):
        convert("coco", DATA / "coco_karpathy_val.json")


# ---- shards with images in them


def tar_of(path, members):
    """A tar file; a member without content is a link."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return path


def stored(name, folder="out/images"):
    return (Path(folder) / name).read_bytes()


def test_webdataset_shards_are_read(tmp_path, convert):
    question = {"question": "What colour?", "caption": "Blue.", "image": "elsewhere/1.jpg", "width": 20}
    dialogue = [{"from": "human", "value": "Which?\n<image>"}, {"from": "gpt", "value": "Red."}]
    (tmp_path / "shards").mkdir()
    tar_of(tmp_path / "shards" / "0.tar", [("a.PNG", png_bytes()), ("a.txt", b"A red one.\n")])
    members = [
        ("../../b.0.png", png_bytes("blue")),
        ("../../b.json", json.dumps(question).encode()),
        ("link.png", None),
    ]
    members += [("c.json", json.dumps({"conversations": dialogue, "id": 3}).encode()), ("c.png", png_bytes())]
    tar_of(tmp_path / "shards" / "1.tar", members)
    red, blue, again = convert("webdataset", tmp_path / "shards")
    assert red == sample("", "A red one.", *red["images"], name="a")
    assert blue == sample("What colour?", "Blue.", *blue["images"], name="../../b")
    assert again["id"] == "3"
    assert again["turns"][0] == {
        "question": [IMAGE, {"type": "text", "text": "Which?"}],
        "answer": "Red.",
    }
    assert stored(*red["images"]) == png_bytes()
    assert stored(*blue["images"]) == png_bytes("blue")
    # Equal images are one file, and no member's name is a path.
    assert again["images"] == red["images"]
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    made = {f"out/images/{name}" for name in red["images"] + blue["images"]}
    assert files == {"shards/0.tar", "shards/1.tar", "out/train.jsonl"} | made


def test_hidden_members_of_webdataset_are_skipped_and_less_usual_formats_read(tmp_path, convert):
    colours = Image.new("RGB", (20, 30), "red")
    kinds = {"a.ppm": "PPM", "b.jp2": "JPEG2000", "c.avif": "AVIF"}
    pictures = {name: encoded(colours, kind) for name, kind in kinds.items()}
    members = [pair for name in pictures for pair in ((name, pictures[name]), (f"{name[0]}.txt", b"A picture."))]
    hidden = [("._a.jpg", b"macOS"), ("__MACOSX/a.txt", b"macOS"), ("./text.txt", b"text alone")]
    found = convert("webdataset", tar_of(tmp_path / "0.tar", [*hidden, *members]))
    assert [len(each["images"]) for each in found] == [0, 1, 1, 1]
    assert [stored(*each["images"]) for each in found[1:]] == list(pictures.values())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"no picture"), ("a.txt", b"b")], "0.tar, sample 'a': not a readable image"),
        ([("a.png", png_bytes())], "0.tar, sample 'a': no .txt or .json with it, only .png"),
        ([("a.png", png_bytes()), ("a.json", b"{")], "0.tar, sample 'a': .json: Expecting"),
        ([("a.png", png_bytes()), ("a.json", b"[]")], "0.tar, sample 'a': .json: a record must be an object"),
        ([("a.png", png_bytes()), ("a.txt", b"\xff")], "0.tar, sample 'a': .txt: 'utf-8' codec"),
        ([("a.png", png_bytes()), ("a.json", b'{"caption": 3}')], "0.tar, sample 'a': key 'caption' must be str"),
        ([("a.mp4", b"film"), ("a.txt", b"b")], "0.tar, sample 'a': its .mp4 is not an image"),
        ([("a.json", b'{"image": "a.jpg", "caption": "b"}')], "'a': its JSON names the image 'a.jpg', only .json"),
        ([("a.json", b'{"images": ["a.jpg"], "text": "b"}')], "'a': its JSON names the image .*'a.jpg'"),
        ([("a.jxl", b"\xff\x0a\0\0"), ("a.txt", b"b")], "'a': its .jxl is not read: images end in .jpg"),
        ([("a.txt", b"b"), ("a.txt", b"c")], "0.tar: 'a.txt' is in it twice"),
        ([("a.txt", b"b"), ("b.txt", b"c"), ("a.txt", b"d")], "0.tar: 'a.txt' is in it twice"),
        (
            [("a.png", png_bytes()), ("a.json", b"[" * 99999 + b"]" * 99999)],
            "0.tar, sample 'a': .json: maximum recursion",
        ),
        ([("a.png", png_bytes()), ("a.json", b'{"url": "b"}')], "0.tar, sample 'a': no column with answers"),
    ],
)
def test_errors_in_webdataset_are_located(tmp_path, convert, members, message):
    with pytest.raises(ValueError, match=message):
        convert("webdataset", tar_of(tmp_path / "0.tar", [("good.png", png_bytes()), ("good.txt", b"a"), *members]))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "out"]


def test_a_truncated_shard_is_refused(tmp_path, convert):
    path = tar_of(tmp_path / "0.tar", [("a.png", png_bytes()), ("a.txt", b"b" * 5000)])
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ValueError, match="0.tar: not a readable tar file: unexpected end of data"):
        convert("webdataset", path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no .tar file"):
        convert("webdataset", tmp_path / "empty")


def test_a_folder_of_images_is_never_replaced(tmp_path, convert):
    (tmp_path / "out" / "images").mkdir(parents=True)
    path = tar_of(tmp_path / "0.tar", [("a.png", png_bytes()), ("a.txt", b"b")])
    with pytest.raises(ValueError, match="out/images exists already: remove it, or name a new folder"):
        convert("webdataset", path, "--force")
    [red] = convert("webdataset", path, "--images", "new")
    assert stored(*red["images"], folder="new") == png_bytes()


@pytest.fixture
def parquet(tmp_path):
    """A function that writes rows as a Parquet file."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (requirements/parquet.txt)")
    from pyarrow.parquet import write_table

    def make(*rows, name="shards/train-00000-of-00001.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_table(pyarrow.Table.from_pylist(list(rows)), tmp_path / name)
        return tmp_path / name

    return make


def test_null_in_a_webdataset_is_a_missing_key(tmp_path, convert):
    row = {"text": None, "caption": "A cup.", "question": None, "conversations": None}
    members = [("a.png", png_bytes()), ("a.json", json.dumps(row).encode())]
    [cup] = convert("webdataset", tar_of(tmp_path / "0.tar", members))
    assert cup == sample("", "A cup.", *cup["images"], name="a")


def test_dialogues_of_parquet_shards(convert, parquet):
    """the_cauldron's, messages as Hugging Face stores them (contents have all keys), TRL's prompt and completion."""
    red, blue = ({"bytes": png_bytes(colour), "path": None} for colour in ("red", "blue"))
    turn = {"user": "Which colours?\nBe brief.", "assistant": "Red, blue.", "source": "x"}
    path = parquet({"images": [red, blue], "texts": [turn, turn]})
    shown, asked = {"type": "image", "text": None, "index": 1}, {"type": "text", "text": "What?", "index": None}
    messages = [{"role": "user", "content": [shown, {**shown, "index": 0}, asked]}]
    messages += [{"role": "assistant", "content": [{"type": "text", "text": "Blue.", "index": None}]}]
    parquet({"images": [red, blue], "messages": messages}, name="shards/1.parquet")
    prompt, completion = [[{"role": role, "content": role}] for role in ("user", "assistant")]
    parquet({"images": [red], "prompt": prompt, "completion": completion}, name="shards/2.parquet")
    indexed, trl, cauldron = convert("parquet", path.parent)
    assert [stored(image) for image in indexed["images"]] == [png_bytes("blue"), png_bytes("red")]
    assert indexed["turns"][0]["answer"] == "Blue."
    assert len(indexed["turns"][0]["question"]) == 3
    assert trl["turns"] == [{"question": [{"type": "image"}, {"type": "text", "text": "user"}], "answer": "assistant"}]
    assert cauldron["turns"] == [{"question": "Which colours?\nBe brief.", "answer": "Red, blue."}] * 2
    assert cauldron["images"] == indexed["images"][::-1]


def test_parquet_shards_are_read(convert, parquet):
    red, blue = ({"bytes": png_bytes(colour), "path": "../1.png"} for colour in ("red", "blue"))
    path = parquet(
        {"image": red, "caption": ["A red one.", "Red."], "n": 1}, {"image": None, "caption": ["None."], "n": 2}
    )
    said = [{"from": "human", "value": "<image>\nSame as\n<image>?"}, {"from": "gpt", "value": "No."}]
    parquet({"id": 5, "images": [red, blue], "conversations": said}, name="shards/train-00001-of-00002.parquet")
    many, none, two = convert("parquet", path.parent)
    assert many == sample("", "", *many["images"], answers=["A red one.", "Red."])
    assert none == sample("", "None.")
    assert two["id"] == "5"
    assert two["images"][0] == many["images"][0]
    assert stored(two["images"][1]) == png_bytes("blue")
    assert [part["type"] for part in two["turns"][0]["question"]] == ["image", "text", "image", "text"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": {"bytes": b"no picture"}, "text": "b"}, "parquet, row 1: key 'image': not a readable image"),
        ({"image": {"bytes": None}, "text": "b"}, "parquet, row 1: key 'image' must hold the bytes of an image"),
        ({"image": None, "text": None}, "parquet, row 1: key 'text' must be str or list, got None"),
    ],
)
def test_errors_in_rows_of_parquet_are_located(convert, parquet, row, message):
    with pytest.raises(ValueError, match=message):
        convert("parquet", parquet({"image": {"bytes": png_bytes()}, "text": "a"}, row))


def test_a_parquet_file_without_answers_or_damaged_is_refused(convert, parquet):
    path = parquet({"image": {"bytes": png_bytes()}, "label": 3})
    with pytest.raises(ValueError, match=r"parquet: no column with answers .*columns: image, label"):
        convert("parquet", path)
    path.write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match="parquet: not a readable Parquet file"):
        convert("parquet", path)


def test_images_of_parquet_without_a_column_are_refused(convert, parquet):
    path = parquet({"photo": {"bytes": png_bytes()}, "text": "a"})
    with pytest.raises(ValueError, match="column 'photo' holds bytes, but no column is used for images"):
        convert("parquet", path)
    assert len(convert("parquet", path, "--columns", "image=photo")[0]["images"]) == 1


def test_parquet_without_pyarrow_names_the_requirements(tmp_path, convert, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="need pyarrow: pip install -r requirements/parquet.txt"):
        convert("parquet", write(tmp_path / "a.parquet", ""))
