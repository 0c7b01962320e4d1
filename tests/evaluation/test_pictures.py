"""The pictures of rows: found through any nesting of dataset configs, grey boxes for those that are lost."""

from pathlib import Path

from PIL import Image

from mmgpt.evaluation.pictures import BOX, Pictures, image_folders


def part(**changes):
    return dict(ann_file="a.json", data_root="data", data_prefix=dict(img="images")) | changes


def test_folders_of_all_datasets():
    examples = dict(type="AddExamples", dataset=part(name="examples"))
    joint = dict(
        visual=[part(name="a", pipeline=[examples]), dict(type="ImageControl", dataset=part(name="b", data_root=None))],
        language=[part(parser="dolly", data_prefix={}), part(parser=dict(type="vqa"), data_root="/else")],
    )
    expected = {"a": "data/images", "b": "images", "dolly": "data", "vqa": "/else/images"}
    assert dict(image_folders(joint)) == {name: Path(path) for name, path in expected.items()}


def test_pictures_and_grey_boxes(tmp_path):
    Image.new("RGB", (5, 4), "blue").save(tmp_path / "blue.png")
    (tmp_path / "broken.png").write_text("no picture")
    pictures = Pictures(part(name="a", data_root=str(tmp_path), data_prefix=dict(img="")))
    [blue, lost, broken] = pictures.of(dict(dataset="a", images=["blue.png", "lost.png", "broken.png"]))
    assert blue.size == (5, 4) and blue.getpixel((0, 0)) == (0, 0, 255)
    assert lost.size == broken.size == BOX
    assert len(pictures.lost) == 2 and "lost.png" in pictures.lost[0] and "broken.png" in pictures.lost[1]


def test_no_pictures():
    assert Pictures({}).of(dict(dataset="a", images=[])) == Pictures({}).of(dict(dataset="a")) == []
