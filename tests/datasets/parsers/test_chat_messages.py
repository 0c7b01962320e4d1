"""Chat messages: roles, contents, images by position, path, data URI or index, and the order that is required."""

import json

import pytest
from PIL import Image

from mmgpt.datasets.conversation import check_sample
from mmgpt.datasets.records import find_parser, read_records
from mmgpt.webpage.rendering import data_uri, saved_json
from mmgpt.webpage.session import Turn
from tests.helpers.parsing import parse, texts

IMAGE = {"type": "image"}


def text(value, kind="text"):
    return {"type": kind, "text": value}


def sample_of(*messages, **more):
    """Sample of messages, each as (role, content) or (role, content, further keys)."""
    entries = [{"role": role, "content": content} | dict(*keys) for role, content, *keys in messages]
    return check_sample(find_parser("messages")({"messages": entries, **more}))


def question_of(content, **more):
    sample = sample_of(("user", content), ("assistant", "a"), **more)
    return texts(sample["turns"][0]["question"]), sample["images"]


def test_images_stand_where_the_contents_are():
    shown, spoken = parse("messages", "chat_messages.jsonl")
    first, second = shown["turns"]
    assert shown["id"] == "table"
    assert shown["images"] == ["table.jpg", "before.jpg", "after.jpg"]
    assert texts(first["question"]) == ["IMAGE", "What is on the table?"]
    assert first["answer"] == "A cup."
    assert texts(second["question"]) == ["Before: ", "IMAGE", " After: ", "IMAGE", " What is missing?"]
    assert second["answer"] == "The cup."
    assert spoken["system"] == "You answer in one sentence."
    assert spoken["images"] == []
    assert spoken["turns"][0]["question"] == "What does <image> mean in HTML?"


def test_prompt_and_completion_are_texts_or_messages():
    talk, river = parse("messages", "trl_prompt_completion.jsonl")
    assert talk["turns"] == [{"question": [IMAGE, text("How many birds are there?")], "answer": "Three."}]
    assert talk["system"] == "You look closely."
    assert talk["images"] == ["birds.jpg"]
    assert river["turns"] == [{"question": [IMAGE, text("Which river is it?")], "answer": "The Rhine."}]


def test_what_the_page_saves_is_read_back(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    file = tmp_path / "conversation.json"
    file.write_text(saved_json([Turn("which <image>?", (image, image), "red"), Turn("and?", (), "it is")]))
    [record] = read_records(file)
    sample = check_sample(find_parser("messages")(record))
    assert sample["images"] == [data_uri(image, None)] * 2
    assert sample["turns"] == [
        {"question": [IMAGE, IMAGE, text("which <image>?")], "answer": "red"},
        {"question": "and?", "answer": "it is"},
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "image_url", "image_url": {"url": "1.jpg"}},
        {"type": "image_url", "image_url": "1.jpg"},
        {"type": "input_image", "image_url": "1.jpg"},
        {"type": "image", "image": "1.jpg"},
        {"type": "image", "url": "1.jpg"},
        {"type": "image", "path": "1.jpg", "index": None},
    ],
)
def test_an_image_content_holds_its_own_path(content):
    assert question_of([content, text("what?", "input_text")]) == (["IMAGE", "what?"], ["1.jpg"])


def test_an_image_content_holds_the_index_of_its_image():
    """As datasets have it that Hugging Face stores in Parquet, where every content has every key."""
    contents = [{"type": "image", "index": i, "text": None} for i in (1, 0, 1)]
    question, images = question_of([*contents, {**text("alike?"), "index": None}], images=["a.jpg", "b.jpg"])
    assert question == ["IMAGE"] * 3 + ["alike?"]
    assert images == ["b.jpg", "a.jpg", "b.jpg"]


def test_images_without_contents_are_at_their_marks_or_at_the_start():
    assert question_of("<image>what?", images="1.jpg") == (["IMAGE", "what?"], ["1.jpg"])
    inside = ["is ", "IMAGE", " like ", "IMAGE", " ?"]
    assert question_of("is <image> like <image> ?", images=["1.jpg", "2.jpg"])[0] == inside
    assert question_of("what?", images=["1.jpg", "2.jpg"])[0] == ["IMAGE", "IMAGE", "what?"]
    assert sample_of(("user", "<image>what?"))["turns"][0]["question"] == "<image>what?"
    for first in ("<image>what?", "what?"):
        sample = sample_of(("user", first), ("assistant", "x"), ("user", "and?"), ("assistant", "y"), image="1.jpg")
        assert sample["images"] == ["1.jpg"]
        assert [turn["question"] for turn in sample["turns"]] == [
            [IMAGE, text("what?")],
            "and?",
        ]


def test_user_messages_that_follow_each_other_are_one_question():
    answer = ("assistant", [text("x"), text("y")])
    sample = sample_of(("user", "a"), ("user", [text("b"), IMAGE]), answer, image="1.jpg")
    assert sample["turns"] == [{"question": [text("a"), IMAGE, text("b")], "answer": "x\ny"}]
    sample = sample_of(("user", "a"), ("user", "b"), ("assistant", "x"))
    assert sample["turns"] == [{"question": "a\nb", "answer": "x"}]


def test_an_open_question_at_the_end_is_left_out_with_its_images():
    talk = ("user", [IMAGE, text("a")]), ("assistant", "x"), ("user", [IMAGE, text("b")])
    sample = sample_of(*talk, images=["1.jpg", "2.jpg"])
    assert sample["images"] == ["1.jpg"]
    assert [turn["answer"] for turn in sample["turns"]] == ["x"]
    assert sample_of(("user", "a"))["turns"] == [{"question": "a", "answer": ""}]
    assert sample_of(("user", "a"), ("assistant", None))["turns"] == [{"question": "a", "answer": ""}]


def test_system_texts_are_joined():
    sample = sample_of(("system", "b"), ("developer", [text("c")]), ("user", "q"), ("assistant", "x"), system="a")
    assert sample["system"] == "a\n\nb\n\nc"
    assert sample["turns"] == [{"question": "q", "answer": "x"}]


USER, ANSWER = ("user", "a"), ("assistant", "b")


@pytest.mark.parametrize(
    ("messages", "more", "message"),
    [
        ([], {}, "there is no user message"),
        ([("system", "a")], {}, "there is no user message"),
        ([ANSWER], {}, "message 0: an assistant message must answer a user message"),
        ([USER, ANSWER, ANSWER], {}, "message 2: an assistant message must answer a user message"),
        ([USER, ("system", "b")], {}, "message 1: a system message must come before all questions"),
        ([USER, ("tool", "b")], {}, "message 1: unknown role 'tool': choose among system, developer, user, assistant"),
        ([USER, ("assistant", None, {"tool_calls": [1]})], {}, r"message 1: key 'tool_calls' \(\[1\]\): training"),
        ([USER, (*ANSWER, {"thinking": "c"})], {}, r"message 1: key 'thinking' \('c'\): training would ignore it"),
        ([USER, (*ANSWER, {"weight": 0})], {}, "message 1: weight 0: every answer of a conversation is trained on"),
        ([USER, ANSWER], {"tools": [1]}, r"key 'tools' \(\[1\]\): calls of tools are not supported"),
        ([("user", None)], {}, "message 0: key 'content' must be str or list, got None"),
        ([("user", ["a"])], {}, "message 0: a content must be an object, got 'a'"),
        ([("user", [{"type": "input_audio"}])], {}, "message 0: unknown type 'input_audio' of a content: choose among"),
        ([("user", [{"type": "text"}])], {}, "message 0: no key 'text'; keys found: type"),
        ([("user", [{"type": "image_url", "image_url": {}}])], {}, "message 0: no key 'url'; keys found: none"),
        ([("user", [{"type": "image", "index": True}])], {}, "message 0: key 'index' must be int, got True"),
        ([USER, ("assistant", [IMAGE])], {}, "message 1: an image in a message of assistant: only a user's"),
        ([("user", [IMAGE])], {}, "the image content with the index 0 is not one of 0 images"),
        ([("user", [IMAGE])], {"images": ["1.jpg", "2.jpg"]}, "no image content stands for '2.jpg', one of 2 images"),
        ([("user", "<image>")], {"images": ["1.jpg", "2.jpg"]}, "2 images, but 1 image contents"),
        ([("user", [{"type": "image", "url": "https://a/1.jpg"}])], {}, "image 'https://a/1.jpg' is on the web"),
    ],
)
def test_wrong_messages_are_named(messages, more, message):
    with pytest.raises(ValueError, match=message):
        sample_of(*messages, **more)


def test_the_cauldron_shows_all_images_first():
    [sample] = parse("the_cauldron", "the_cauldron.jsonl")
    assert sample["images"] == ["chart.png", "table.png"]
    assert sample["turns"] == [
        {"question": "What is the highest bar?\nAnswer with one word.", "answer": "Blue."},
        {"question": "And the lowest?", "answer": "Red."},
    ]
    with pytest.raises(ValueError, match="texts must hold objects, got 'a'"):
        find_parser("the_cauldron")({"texts": ["a"]})


def test_a_file_of_one_saved_conversation_is_one_record(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"messages": [], "images": []}))
    assert list(read_records(tmp_path / "a.json")) == [{"messages": [], "images": []}]
