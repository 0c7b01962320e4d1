import pytest

from mmgpt.datasets.conversation import place_images
from mmgpt.datasets.prompts import TEMPLATES, format_turns
from mmgpt.datasets.records import find_parser, read_records
from mmgpt.datasets.segments import prompt_text
from tests.helpers.parsing import DATA, parse

TRUTH = ["true", "false"]


def test_nlvr_has_its_boxes_in_six_orders():
    right, wrong = parse({"type": "nlvr", "split": "train"}, "nlvr_train.json")
    assert right["images"] == [f"73/train-3476-2-{order}.png" for order in range(6)]
    assert right["id"] == "3476-2"
    sentence = "There is a box with 2 triangles of same color nearly touching each other."
    assert right["turns"] == [{"question": sentence, "answer": "true", "choices": TRUTH}]
    assert wrong["turns"][0]["answer"] == "false"


def test_nlvr2_has_two_images_left_and_right():
    train, dev = parse("nlvr2", "nlvr2_train.json")
    assert train["images"] == ["37/train-10171-0-img0.png", "37/train-10171-0-img1.png"]
    assert train["turns"][0]["answer"] == "false"
    assert train["turns"][0]["choices"] == TRUTH
    assert dev["images"] == ["dev-850-1-img0.png", "dev-850-1-img1.png"]
    assert dev["turns"][0]["answer"] == "true"
    turns = place_images(dev["turns"], len(dev["images"]))
    assert prompt_text(format_turns(TEMPLATES["short"], turns)).count("### Image:\n<image>\n\n") == 2


def test_nlvr2_in_one_list():
    [sample] = parse("nlvr2", "nlvr2_lavis_train.json")
    assert sample["images"] == [f"images/train/41/train-8756-1-img{side}.png" for side in (0, 1)]
    assert sample["turns"][0]["answer"] == "true"
    assert sample["id"] == ""


def test_snli_ve():
    neutral, against = parse("snli_ve", "snli_ve_train.jsonl")
    assert neutral["images"] == ["3416050480.jpg"]
    assert neutral["id"] == "3416050480.jpg#4r1n"
    assert neutral["turns"] == [
        {
            "question": "A person is training his horse for a competition.",
            "answer": "neutral",
            "choices": ["entailment", "neutral", "contradiction"],
        }
    ]
    # The votes of single annotators are no right answers.
    assert against["turns"][0]["answer"] == "contradiction"
    assert "answers" not in against["turns"][0]


@pytest.mark.parametrize(
    ("parser", "file", "key", "choices"),
    [
        ({"type": "nlvr", "split": "train"}, "nlvr_train.json", "label", "true, false"),
        ("nlvr2", "nlvr2_train.json", "label", "true, false"),
        ("snli_ve", "snli_ve_train.jsonl", "gold_label", "entailment, neutral, contradiction"),
    ],
)
def test_labels_become_answers(parser, file, key, choices):
    record = next(read_records(DATA / file))
    with pytest.raises(ValueError, match=f"key '{key}' must be one of {choices}, got '-'"):
        find_parser(parser)(record | {key: "-"})
    del record[key]
    assert find_parser(parser)(record)["turns"][0]["answer"] == ""


def test_nlvr2_with_another_number_of_images_is_an_error():
    with pytest.raises(ValueError, match=r"'images' must hold the left and the right image, got \['1.png'\]"):
        find_parser("nlvr2")({"sentence": "a", "label": "True", "images": ["1.png"]})
