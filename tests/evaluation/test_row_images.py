"""RowImages: images are found through any nesting of dataset configs; gray boxes stand for missing ones."""

from pathlib import Path

from PIL import Image

from mmgpt.evaluation.row_images import PLACEHOLDER_SIZE, RowImages, image_folders


def part(**changes):
    return dict(ann_file="a.json", data_root="data", data_prefix=dict(img="images")) | changes


def test_image_folders_of_nested_datasets():
    examples = dict(type="AddExamples", dataset=part(name="examples"))
    joint = dict(
        visual=[part(name="a", pipeline=[examples]), dict(type="ImageControl", dataset=part(name="b", data_root=None))],
        language=[part(parser="dolly", data_prefix={}), part(parser=dict(type="vqa"), data_root="/else")],
    )
    expected = {"a": "data/images", "b": "images", "dolly": "data", "vqa": "/else/images"}
    assert dict(image_folders(joint)) == {name: Path(path) for name, path in expected.items()}


def test_images_and_placeholders(tmp_path):
    Image.new("RGB", (5, 4), "blue").save(tmp_path / "blue.png")
    (tmp_path / "broken.png").write_text("no image")
    row_images = RowImages(part(name="a", data_root=str(tmp_path), data_prefix=dict(img="")))
    [blue, missing, broken] = row_images.load(dict(dataset="a", images=["blue.png", "missing.png", "broken.png"]))
    assert blue.size == (5, 4)
    assert blue.getpixel((0, 0)) == (0, 0, 255)
    assert missing.size == broken.size == PLACEHOLDER_SIZE
    assert len(row_images.errors) == 2
    assert "missing.png" in row_images.errors[0]
    assert "broken.png" in row_images.errors[1]


def test_rows_without_images():
    assert RowImages({}).load(dict(dataset="a", images=[])) == RowImages({}).load(dict(dataset="a")) == []
