import pytest

from mmgpt.datasets.conversation import check_sample
from mmgpt.datasets.records import find_parser
from tests.helpers.parsing import IMAGE, parse, texts


def test_llava_with_several_images_and_turns():
    [sample] = parse("llava", "llava_interleave.json")
    assert sample["images"] == ["kitchen/before.jpg", "kitchen/after.jpg", "plan.png"]
    assert sample["id"] == "17"
    first, second, third = sample["turns"]
    assert texts(first["question"]) == ["Before: ", "IMAGE", "\nAfter: ", "IMAGE", "\nWhat has changed?"]
    assert texts(second["question"]) == ["IMAGE", "Does it follow this plan?"]
    assert second["answer"] == "Yes."
    assert third == {"question": "Thank you.", "answer": "You are welcome."}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("what is this?\n<image>", ["IMAGE", "what is this?"]),
        ("<image>\nwhat is\nthis?", ["IMAGE", "what is\nthis?"]),
        ("<image>\nalike?\n<image>", ["IMAGE", "IMAGE", "alike?"]),
        ("<image> <image>", ["IMAGE", "IMAGE"]),
        ("<image>\nis <image> like it?", ["IMAGE", "is ", "IMAGE", " like it?"]),
        ("is <image> like\n<image>", ["is ", "IMAGE", " like\n", "IMAGE"]),
    ],
)
def test_image_marks_become_image_contents(value, expected):
    said = [{"from": "human", "value": value}, {"from": "gpt", "value": "a bus"}]
    [turn] = find_parser("llava")({"image": "1.jpg", "conversations": said})["turns"]
    assert texts(turn["question"]) == expected


def test_sharegpt_has_a_system_text():
    sample, cut = parse("sharegpt", "sharegpt.json")
    first, second = sample["turns"]
    assert sample["system"] == "You answer in one sentence."
    assert "system" not in cut
    assert first["question"] == "What does <image> mean in this HTML?"
    assert first["answer"] == "It is a tag.\nBrowsers read it as img."
    assert sample["id"] == "QWJhYvA_0"
    assert second == {"question": "And </s>?", "answer": "It ends an s element."}


def test_sharegpt_leaves_out_an_answer_without_a_question():
    _, cut = parse("sharegpt", "sharegpt.json")
    assert cut["turns"] == [{"question": "Go on.", "answer": "It ends here."}]


def test_sharegpt_with_an_image():
    [photo] = parse("sharegpt", "sharegpt_images.json")
    assert photo["images"] == ["7.jpg"]
    assert photo["system"] == "You look closely."
    assert texts(photo["turns"][0]["question"]) == ["IMAGE", "How many birds?"]


def test_system_texts_of_key_and_first_entry_are_joined():
    sample = sharegpt(("system", "b "), ("human", "q"), ("gpt", "x"), system="a")
    assert sample["system"] == "a\n\nb"
    assert sample["turns"] == [{"question": "q", "answer": "x"}]


def test_other_names_of_the_speakers():
    assert sharegpt(("user", "q"), ("chatgpt", "x"), ("user", "r"), ("assistant", "y"))["turns"] == [
        {"question": "q", "answer": "x"},
        {"question": "r", "answer": "y"},
    ]


def sharegpt(*said, **more):
    return find_parser("sharegpt")({"conversations": [{"from": who, "value": what} for who, what in said], **more})


def test_image_mark_in_a_record_without_images_is_text():
    assert check_sample(sharegpt(("human", "<image>"), ("gpt", "a tag")))["turns"][0]["question"] == "<image>"
    assert sharegpt(("human", "<image>"), ("gpt", "a bus"), image="1.jpg")["turns"][0]["question"] == [IMAGE]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "conversations is empty"),
        ([("system", "be brief")], "conversations is empty"),
        ([("gpt", "hello")], "conversations is empty"),
        ([("human", "a"), ("human", "b")], "found 'human', expected 'gpt'"),
        ([("human", "a"), ("system", "b")], "found 'system', expected 'gpt'"),
        ([("tool", "a")], "found 'tool', expected 'human'"),
    ],
)
def test_sharegpt_wrong_order_of_speakers_is_an_error(said, message):
    with pytest.raises(ValueError, match=message):
        sharegpt(*said)


@pytest.mark.parametrize("parser", ["llava", "sharegpt"])
def test_entries_that_are_not_objects_are_an_error(parser):
    with pytest.raises(ValueError, match="conversations must hold objects, got 'hello'"):
        find_parser(parser)({"conversations": ["hello", "hello"]})
    with pytest.raises(ValueError, match="no key 'from'; keys found: role"):
        find_parser(parser)({"conversations": [{"role": "user"}]})
