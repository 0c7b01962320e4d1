import json
import re

import pytest

from mmgpt.datasets.conversation import check_sample
from mmgpt.datasets.records import find_parser
from tests.helpers.parsing import DATA, parse, texts

GUIDE = DATA.parents[1] / "docs" / "data.md"


def test_images_interleaved_with_text():
    one, interleaved, choice = parse("conversation", "own_images.jsonl")
    assert one["id"] == "photo-1"
    assert one["turns"] == [{"question": "What is on the table?", "answer": "A cup."}]
    assert interleaved["id"] == ""
    assert interleaved["images"] == ["1.jpg", "2.jpg"]
    question = interleaved["turns"][0]["question"]
    assert texts(question) == ["Before: ", "IMAGE", " After: ", "IMAGE", " What is missing?"]
    assert interleaved["turns"][1]["answer"] == "Nobody knows."
    assert choice["turns"][0]["choices"] == ["brown", "white"]
    assert choice["turns"][0]["rationales"] == ["It is wooden."]


def test_text_only():
    turns, context = parse("conversation", "own_text.jsonl")
    assert turns["images"] == []
    assert len(turns["turns"]) == 2
    assert context["turns"][0]["context"] == "Guten Morgen"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "1.jpg", "turns": []}, "unknown key 'image': a record has id, images, turns"),
        ({"turns": [{"question": "a", "anwser": "b"}]}, "unknown key 'anwser': a turn has question, answer, context"),
        ({"turns": ["a"]}, "a turn must be an object, got 'a'"),
        ({"turns": [{"answer": "b"}]}, "no key 'question'; keys found: answer"),
        ({"turns": [{"question": None}]}, "key 'question' must be str or list, got None"),
        ({"turns": []}, "at least one turn"),
        ({"images": "1.jpg", "turns": [{"question": [{"type": "video"}]}]}, "a question must be"),
        ({"images": ["1.jpg"], "turns": [{"question": [{"type": "image"}] * 2}]}, "1 images, but 2 image contents"),
    ],
)
def test_errors_name_the_unknown_key(record, message):
    with pytest.raises(ValueError, match=message):
        check_sample(find_parser("conversation")(record))


def test_the_examples_of_the_guide_are_read():
    """Every line of its JSON lines blocks."""
    blocks = re.findall(r"```jsonl\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    samples = [check_sample(find_parser("conversation")(json.loads(line))) for line in lines]
    assert len(samples) >= 4
    assert {len(sample["images"]) for sample in samples} >= {0, 1, 2}
