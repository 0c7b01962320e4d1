"""The formats of benchmarks: what is asked, and the tags by which scores are grouped."""

import pytest

from mmgpt.datasets.records import find_parser
from tests.helpers.parsing import COCO_2014, parse

TAGS = ["question_type", "answer_type"]


def test_karpathy_files_have_all_splits():
    kept, other = parse({"type": "karpathy", "split": "test"}, "dataset_coco.json")
    assert other is None
    assert kept["id"] == "391895"
    assert kept["images"] == ["val2014/COCO_val2014_000000391895.jpg"]
    captions = ["A man with a red helmet on a small moped on a dirt road.", "Man riding a motor bike on a dirt road."]
    assert kept["turns"] == [{"question": "", "answer": "", "answers": captions}]
    other, kept = parse({"type": "karpathy", "split": "test"}, "dataset_flickr30k.json")
    assert other is None
    assert (kept["id"], kept["images"]) == ("1007129816", ["1007129816.jpg"])
    assert kept["turns"][0]["answer"] == "The man with a pierced ear wears glasses."


def test_nocaps_has_the_captions_of_each_image():
    many, one = parse("nocaps", "nocaps_val_4500_captions.json")
    assert (many["id"], many["images"], many["tags"]) == ("0", ["0013ea2087020901.jpg"], {"domain": "in-domain"})
    assert many["turns"][0]["answers"] == [
        "A baby is standing in front of a house.",
        "A little girl in a white jacket.",
    ]
    assert one["turns"][0]["answers"] == ["A dinosaur skeleton."]
    assert one["tags"] == {"domain": "out-domain"}


def test_vqa_has_all_ten_answers():
    red, no = parse(
        {"type": "vqa", "image": COCO_2014, "tags": TAGS},
        "v2_mscoco_val2014_annotations.json",
        "v2_OpenEnded_mscoco_val2014_questions.json",
    )
    assert red["tags"] == {"question_type": "what color is the", "answer_type": "other"}
    assert red["id"] == "262148000"
    assert red["turns"][0]["answers"] == ["red"] * 9 + ["dark red"]
    assert no["turns"][0]["answer"] == "no"
    unanswerable, boots = parse({"type": "vqa", "tags": TAGS[1:]}, "vizwiz_val.json")
    assert unanswerable["tags"] == {"answer_type": "unanswerable"}
    assert unanswerable["images"][0].startswith("VizWiz")
    assert boots["turns"][0]["answers"] == ["boots"] * 10
    assert boots["tags"] == {"answer_type": "other"}


def test_gqa_tags_are_its_types():
    reader = {"type": "vqa", "image": "{imageId}.jpg", "tags": ["structural", "semantic"]}
    [sample] = parse(reader, "gqa_testdev_balanced_questions.json")
    assert sample["tags"] == {"structural": "verify", "semantic": "global"}
    assert sample["turns"][0]["answer"] == "no"


def test_aokvqa_tags_difficult_questions():
    easy, difficult = parse("aokvqa", "aokvqa_val.json")
    assert easy["tags"] == {"difficult_direct_answer": "false"}
    assert easy["turns"][0]["answer"] == "cigarette"
    assert difficult["tags"] == {"difficult_direct_answer": "true"}


def test_scienceqa():
    text, image, plain, trained = parse({"type": "scienceqa", "split": "test"}, "scienceqa_problems.json")
    assert trained is None
    assert text["images"] == plain["images"] == []
    assert text["turns"] == [
        {
            "question": "Which figure of speech is used in this text?",
            "choices": ["chiasmus", "apostrophe"],
            "answer": "apostrophe",
            "context": "Sing, O muse.",
        }
    ]
    assert text["tags"] == {"subject": "language science", "grade": "7-12", "context": ["text"]}
    assert image["images"] == ["test/5/image.png"]
    assert image["id"] == "5"
    assert image["tags"] == {"subject": "natural science", "grade": "1-6", "context": ["text", "image"]}
    assert "context" not in plain["turns"][0]
    assert plain["tags"]["context"] == "none"
    assert parse("scienceqa", "scienceqa_problems.json")[3]["images"] == ["train/1/image.png"]


@pytest.mark.parametrize(("grade", "group"), [("grade6", "1-6"), ("grade7", "7-12"), ("grade12", "7-12")])
def test_scienceqas_grades(grade, group):
    record = {"id": "1", "question": "a", "choices": ["b"], "answer": 0, "hint": "", "subject": "c", "split": "val"}
    assert find_parser("scienceqa")(record | {"grade": grade})["tags"]["grade"] == group


def test_pope():
    there, absent = parse({"type": "pope", "category": "random"}, "coco_pope_random.json")
    assert there == {
        "id": "random-1",
        "images": ["COCO_val2014_000000310196.jpg"],
        "turns": [{"question": "Is there a snowboard in the image?", "answer": "yes", "choices": ["yes", "no"]}],
        "tags": {"category": "random"},
    }
    assert absent["turns"][0]["answer"] == "no"
