"""Conversion of messages to a conversation."""

import json

import pytest

from mmgpt.apis.conversation import read_conversation
from mmgpt.datasets.prompts import SHORT
from mmgpt.datasets.transforms import FormatPrompt
from mmgpt.server.errors import ApiError
from mmgpt.server.image_urls import ImageDecoder
from mmgpt.server.messages import check_size, image_params, to_conversation
from mmgpt.server.schema import Message
from mmgpt.server.settings import Settings
from tests.server.conftest import data_uri, image_bytes, image_content, text_content

IMAGE = {"type": "image"}


def messages(*pairs):
    return [Message.model_validate_json(json.dumps(dict(role=role, content=content))) for role, content in pairs]


def convert(*pairs):
    return to_conversation(messages(*pairs), ImageDecoder({}, 10**6))


def colours(conversation):
    return [image.getpixel((0, 0)) for image in conversation.images]


def test_turns():
    conversation = convert(("user", "one?"), ("assistant", " 1\n"), ("user", "two?"))
    assert conversation.turns == [
        dict(question=[text_content("one?")], answer="1"),
        dict(question=[text_content("two?")]),
    ]
    assert conversation.images == []


def test_contents_keep_their_order():
    red, blue = (image_content(data_uri(image_bytes(colour))) for colour in ("red", "blue"))
    first = [text_content("is"), red, text_content("or"), blue, text_content("larger?"), text_content("say it")]
    conversation = convert(("user", first), ("assistant", "no"), ("user", [red, text_content("why?")]))
    assert [part.get("text") for part in conversation.turns[0]["question"]] == [
        "is", None, "or", None, "larger?", "\nsay it",
    ]  # fmt: skip
    assert conversation.turns[1]["question"] == [IMAGE, text_content("why?")]
    assert colours(conversation) == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]


@pytest.mark.parametrize(
    "content, order",
    [
        ("ti", "it"), ("iti", "iit"), ("tti", "itt"), ("ttii", "iitt"), ("itt", "itt"), ("i", "i"), ("t", "t"),
        ("tit", "tit"), ("itit", "itit"), ("titi", "titi"), ("ititi", "ititi"),
    ],
)  # fmt: skip
def test_images_behind_the_text_go_before_it(content, order):
    parts = [image_content() if kind == "i" else text_content("a") for kind in content]
    question = convert(("user", parts)).turns[0]["question"]
    assert "".join(part["type"][0] for part in question) == order


def test_instructions_lead_the_first_question_behind_its_images():
    conversation = convert(
        ("system", "Be brief."),
        ("developer", [text_content("Be"), text_content("kind.")]),
        ("user", [image_content(), text_content("what?")]),
    )
    assert conversation.system == "Be brief.\n\nBe\nkind."
    assert read_conversation(conversation, [FormatPrompt(SHORT, open_last=True)])["prompt"] == (
        "### Image:\n<image>\n\n### Instruction:\nBe brief.\n\nBe\nkind.\n\nwhat?\n\n### Response:\n"
    )


@pytest.mark.parametrize(
    "pairs, param",
    [
        ([("assistant", "a")], "messages[0].role"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], "messages[2].role"),
        ([("user", "a"), ("assistant", "b")], "messages[1].role"),
        ([("user", "a"), ("system", "b"), ("user", "c")], "messages[1].role"),
        ([("system", "a")], "messages[0].role"),
        ([("system", [image_content()]), ("user", "a")], "messages[0].content"),
        ([("user", "a"), ("assistant", [image_content()]), ("user", "a")], "messages[1].content"),
        ([("user", [text_content("a"), image_content("/etc/passwd")])], "messages[0].content[1].image_url.url"),
    ],
)
def test_invalid_messages_are_refused(pairs, param):
    with pytest.raises(ApiError) as caught:
        convert(*pairs)
    assert (caught.value.status, caught.value.body["error"]["param"]) == (400, param)


@pytest.mark.parametrize("content", [None, "", []])
def test_an_assistant_message_may_be_empty(content):
    conversation = convert(("user", "one?"), ("assistant", content), ("user", "two?"))
    assert conversation.turns == [
        dict(question=[text_content("one?")], answer=""),
        dict(question=[text_content("two?")]),
    ]


@pytest.mark.parametrize(
    "contents, order",
    [
        (["a", "b"], "tt"), (["a", "i"], "it"), (["i", "a"], "it"), (["ai", "b"], "itt"), (["ia", "ib"], "itit"),
        (["i", "i", "a"], "iit"), (["a", "i", "b"], "tit"), (["a", "b", "i"], "itt"),
    ],
)  # fmt: skip
def test_user_messages_in_a_row_are_one_question(contents, order):
    colours_sent = iter(["red", "blue"])
    sent = [
        [
            image_content(data_uri(image_bytes(next(colours_sent)))) if kind == "i" else text_content(kind)
            for kind in kinds
        ]
        for kinds in contents
    ]
    conversation = convert(("system", "s"), *(("user", content) for content in sent))
    question = conversation.turns[0]["question"]
    assert len(conversation.turns) == 1
    assert "".join(part["type"][0] for part in question) == order
    assert colours(conversation) == [(255, 0, 0), (0, 0, 255)][: order.count("i")]
    if contents == ["a", "b"]:
        assert question == [text_content("a"), text_content("\nb")]


def test_parameters_of_images():
    params = image_params(messages(("user", [text_content("a"), image_content("x")]), ("user", [image_content("y")])))
    assert list(params) == [
        ("messages[0].content[1].image_url.url", "x"),
        ("messages[1].content[0].image_url.url", "y"),
    ]


@pytest.mark.parametrize(
    "limit, size, pairs",
    [
        ("turns", 2, [("user", "a"), ("assistant", "b")] * 2 + [("user", "c")]),
        ("images", 2, [("user", [image_content(), image_content()]), ("user", [image_content()])]),
        ("characters", 5, [("system", "ab"), ("user", [text_content("cd")]), ("assistant", "ef")]),
    ],
)
def test_the_size_of_a_conversation_is_limited(limit, size, pairs):
    with pytest.raises(ApiError, match=f"has {size + 1} .*: at most {size} "):
        check_size(messages(*pairs), Settings("tiny", **{f"max_{limit}": size}))
    check_size(messages(*pairs), Settings("tiny", **{f"max_{limit}": size + 1}))
