import pytest

from mmgpt.datasets.records import find_parser
from tests.helpers.parsing import COCO_2014, parse

VQAV2 = ("v2_mscoco_train2014_annotations.json", "v2_OpenEnded_mscoco_train2014_questions.json")


def test_vqav2_annotations_joined_to_their_questions():
    several, tie = parse({"type": "vqa", "image": COCO_2014}, *VQAV2)
    assert several["id"] == "458752000"
    assert several["images"] == ["train2014/COCO_train2014_000000458752.jpg"]
    assert several["turns"] == [
        {
            "question": "What is this photo taken looking through?",
            "answer": "net",
            "answers": ["netting", "net", "net"],
        }
    ]
    assert tie["turns"] == [{"question": "Is the man tall?", "answer": "no", "answers": ["no", "yes"]}]


def test_vqav2_questions_without_annotations_have_no_answers():
    sample, _ = parse({"type": "vqa", "image": COCO_2014}, VQAV2[1])
    assert sample["turns"] == [{"question": "Is the man tall?", "answer": ""}]


def test_vqav2_in_one_list():
    most, tie = parse("vqa", "vqa_train.json")
    assert most["images"] == ["val2014/COCO_val2014_000000262148.jpg"]
    assert most["id"] == "262148000"
    assert most["turns"][0]["answer"] == "down"
    assert len(most["turns"][0]["answers"]) == 4
    assert tie["turns"][0]["answer"] == "spectators"


def test_okvqa():
    [sample] = parse({"type": "vqa", "image": COCO_2014}, "okvqa_annotations.json", "okvqa_questions.json")
    [turn] = sample["turns"]
    assert turn["answer"] == "pony tail"
    assert turn["answers"] == ["pony tail", "pony tail", "braid"]
    assert turn["question"] == "What is the hairstyle of the blond called?"


def test_textvqa():
    [sample] = parse({"type": "vqa", "image": "{image_id}.jpg"}, "TextVQA_0.5.1_train.json")
    assert sample["images"] == ["0054c91397f2fe05.jpg"]
    assert sample["id"] == "0"
    assert sample["turns"][0]["answer"] == "nokia"
    assert "toshiba" in sample["turns"][0]["answers"]


@pytest.mark.parametrize(("key", "answer"), [(None, "yes"), ("fullAnswer", "Yes, the sky is dark.")])
def test_gqa_short_and_full_answers(key, answer):
    [sample] = parse({"type": "vqa", "image": "{imageId}.jpg", "answer": key}, "gqa_train_balanced_questions.json")
    assert sample["id"] == "02930152"
    assert sample["images"] == ["2354786.jpg"]
    assert sample["turns"] == [{"question": "Is the sky dark?", "answer": answer, "answers": [answer]}]


def test_clevr():
    [sample] = parse({"type": "vqa", "image": "{split}/{image_filename}"}, "CLEVR_train_questions.json")
    assert sample["images"] == ["train/CLEVR_train_000000.png"]
    assert sample["turns"][0]["answer"] == "3"


RECORD = {"question": "what?", "image": "1.jpg", "image_id": "x", "answers": ["a"]}


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"image": "{imageId}.jpg"}, {}, "no key 'imageId'; keys found: question, image"),
        ({"image": "{image_id:012d}.jpg"}, {}, "does not fit '{image_id:012d}.jpg'"),
        ({"answer": "fullAnswer"}, {}, "no key 'fullAnswer'"),
        ({}, {"answers": 3}, "key 'answers' must be str or list, got 3"),
        ({}, {"answers": ["a", 3]}, "key 'answers' must hold strings"),
        ({}, {"answers": [{"raw_answer": "a"}]}, "no key 'answer'; keys found: raw_answer"),
    ],
)
def test_options_and_answers_that_do_not_fit_are_an_error(options, change, message):
    read = find_parser({"type": "vqa", **options})
    with pytest.raises(ValueError, match=message):
        read(RECORD | change)


def test_empty_list_of_answers_gives_no_answer():
    assert find_parser("vqa")(RECORD | {"answers": []})["turns"] == [{"question": "what?", "answer": ""}]
