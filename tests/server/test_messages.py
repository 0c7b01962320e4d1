"""Messages to conversations."""

import json

import pytest

from mmgpt.datasets.prompts import SHORT, format_turns, prompt_text
from mmgpt.server.errors import ApiError
from mmgpt.server.images import Pictures
from mmgpt.server.messages import check_size, image_places, to_conversation
from mmgpt.server.schema import Message
from mmgpt.server.settings import Settings
from tests.server.conftest import data_uri, image_part, picture_bytes, text_part

IMAGE = {"type": "image"}


def messages(*pairs):
    return [Message.model_validate_json(json.dumps(dict(role=role, content=content))) for role, content in pairs]


def convert(*pairs):
    return to_conversation(messages(*pairs), Pictures({}, 10**6))


def colours(conversation):
    return [image.getpixel((0, 0)) for image in conversation.images]


def test_turns():
    conversation = convert(("user", "one?"), ("assistant", " 1\n"), ("user", "two?"))
    assert conversation.turns == [
        dict(question=[text_part("one?")], answer="1"),
        dict(question=[text_part("two?")]),
    ]
    assert conversation.images == []


def test_parts_keep_their_order():
    red, blue = (image_part(data_uri(picture_bytes(colour))) for colour in ("red", "blue"))
    first = [text_part("is"), red, text_part("or"), blue, text_part("larger?"), text_part("say it")]
    conversation = convert(("user", first), ("assistant", "no"), ("user", [red, text_part("why?")]))
    assert [part.get("text") for part in conversation.turns[0]["question"]] == [
        "is", None, "or", None, "larger?", "\nsay it",
    ]  # fmt: skip
    assert conversation.turns[1]["question"] == [IMAGE, text_part("why?")]
    assert colours(conversation) == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]


@pytest.mark.parametrize(
    "content, places",
    [
        ("ti", "it"), ("iti", "iit"), ("tti", "itt"), ("ttii", "iitt"), ("itt", "itt"), ("i", "i"), ("t", "t"),
        ("tit", "tit"), ("itit", "itit"), ("titi", "titi"), ("ititi", "ititi"),
    ],
)  # fmt: skip
def test_pictures_behind_the_text_go_before_it(content, places):
    parts = [image_part() if kind == "i" else text_part("a") for kind in content]
    question = convert(("user", parts)).turns[0]["question"]
    assert "".join(part["type"][0] for part in question) == places


def test_instructions_lead_the_first_question_behind_its_pictures():
    conversation = convert(
        ("system", "Be brief."),
        ("developer", [text_part("Be"), text_part("kind.")]),
        ("user", [image_part(), text_part("what?")]),
    )
    assert prompt_text(format_turns(SHORT, conversation.turns)) == (
        "### Image:\n<image>\n\n### Instruction:\nBe brief.\n\nBe\nkind.\n\nwhat?\n\n### Response:\n"
    )


@pytest.mark.parametrize(
    "pairs, place",
    [
        ([("assistant", "a")], "messages[0].role"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], "messages[2].role"),
        ([("user", "a"), ("assistant", "b")], "messages[1].role"),
        ([("user", "a"), ("system", "b"), ("user", "c")], "messages[1].role"),
        ([("system", "a")], "messages[0].role"),
        ([("system", [image_part()]), ("user", "a")], "messages[0].content"),
        ([("user", "a"), ("assistant", [image_part()]), ("user", "a")], "messages[1].content"),
        ([("user", [text_part("a"), image_part("/etc/passwd")])], "messages[0].content[1].image_url.url"),
    ],
)
def test_what_is_refused(pairs, place):
    with pytest.raises(ApiError) as caught:
        convert(*pairs)
    assert (caught.value.status, caught.value.body["error"]["param"]) == (400, place)


@pytest.mark.parametrize("content", [None, "", []])
def test_an_assistant_that_said_nothing(content):
    conversation = convert(("user", "one?"), ("assistant", content), ("user", "two?"))
    assert conversation.turns == [dict(question=[text_part("one?")], answer=""), dict(question=[text_part("two?")])]


@pytest.mark.parametrize(
    "contents, places",
    [
        (["a", "b"], "tt"), (["a", "i"], "it"), (["i", "a"], "it"), (["ai", "b"], "itt"), (["ia", "ib"], "itit"),
        (["i", "i", "a"], "iit"), (["a", "i", "b"], "tit"), (["a", "b", "i"], "itt"),
    ],
)  # fmt: skip
def test_user_messages_in_a_row_are_one_question(contents, places):
    colours_sent = iter(["red", "blue"])
    sent = [
        [image_part(data_uri(picture_bytes(next(colours_sent)))) if kind == "i" else text_part(kind) for kind in kinds]
        for kinds in contents
    ]
    conversation = convert(("system", "s"), *(("user", content) for content in sent))
    question = conversation.turns[0]["question"]
    led = [part for part in question if part != text_part("s\n\n")]
    assert len(conversation.turns) == 1 and "".join(part["type"][0] for part in led) == places
    assert colours(conversation) == [(255, 0, 0), (0, 0, 255)][: places.count("i")]
    if contents == ["a", "b"]:
        assert led == [text_part("a"), text_part("\nb")]


def test_places_of_pictures():
    found = image_places(messages(("user", [text_part("a"), image_part("x")]), ("user", [image_part("y")])))
    assert list(found) == [("messages[0].content[1].image_url.url", "x"), ("messages[1].content[0].image_url.url", "y")]


@pytest.mark.parametrize(
    "limit, size, pairs",
    [
        ("turns", 2, [("user", "a"), ("assistant", "b")] * 2 + [("user", "c")]),
        ("images", 2, [("user", [image_part(), image_part()]), ("user", [image_part()])]),
        ("characters", 5, [("system", "ab"), ("user", [text_part("cd")]), ("assistant", "ef")]),
    ],
)
def test_sizes(limit, size, pairs):
    with pytest.raises(ApiError, match=f"has {size + 1} .*: at most {size} "):
        check_size(messages(*pairs), Settings("tiny", **{f"max_{limit}": size}))
    check_size(messages(*pairs), Settings("tiny", **{f"max_{limit}": size + 1}))
