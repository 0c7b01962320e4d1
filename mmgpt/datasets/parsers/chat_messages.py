"""Parsers of chat messages (OpenAI's, TRL's, those that the chat page saves) and of the_cauldron's texts."""

from collections.abc import Sequence

from mmgpt.datasets.conversation import (
    IMAGE_CONTENT,
    count_images,
    is_image,
    join_messages,
    place_images,
    question_contents,
    question_text,
    text_content,
)
from mmgpt.registry import PARSERS

from .dialogue import marked_question
from .fields import add_system, field, has, image_list, name_of, refuse, refuse_images, refuse_other_media

INSTRUCTION_ROLES = ("system", "developer")
ROLES = (*INSTRUCTION_ROLES, "user", "assistant")
TEXT_TYPES = ("text", "input_text", "output_text")
IMAGE_TYPES = ("image", "image_url", "input_image")
# Keys of an image content that hold its path or data URI: OpenAI's, and those of transformers' chat templates.
LOCATION_KEYS = ("image_url", "image", "url", "path")
# Keys of a message whose values training would ignore.
UNSUPPORTED = ("tool_calls", "function_call", "refusal", "audio", "reasoning_content", "thinking")


@PARSERS.register_module(name="messages")
def messages(record: dict) -> dict:
    """Record with `messages` of system, user and assistant, or with TRL's `prompt` and `completion`, and its `images`.

    A content is a string, or a list of `{"type": "text", "text": ...}` and images. An image content holds its own path
    or data URI (`{"type": "image_url", "image_url": {"url": ...}}`), or stands for the next of the record's `images`,
    or for the one with its `index`. In a record without image contents, `<image>` in a user's text is the position of
    one of `images`; without such marks, all images are shown before the first question. `prompt` and `completion` are
    texts or lists of messages. Every assistant message is supervised, also those of a `prompt`.

    User messages that follow each other are one question, as in the server's requests. A question at the end without an
    answer is left out with its images, unless it is the only one: then its turn has an empty answer.

    Raises:
        ValueError: messages in another order or of another role (a tool's), contents of other types, images in messages
            that are not a user's, another number of images, or an answer that is not to be trained on (`weight`).
    """
    refuse_other_media(record)
    refuse_images(record)
    refuse(record, ("tools", "functions"), "calls of tools are not supported")
    # 1. Messages become turns.
    systems, turns = [], []
    for number, message in enumerate(_messages(record)):
        try:
            role, contents = _read_message(message)
            is_answered = not turns or "answer" in turns[-1]
            if role == "user" and is_answered:
                turns.append({"messages": [contents]})
            elif role == "user":
                turns[-1]["messages"].append(contents)
            elif role == "assistant":
                if is_answered:
                    raise ValueError("an assistant message must answer a user message")
                turns[-1]["answer"] = _text(contents).strip()
            elif turns:
                raise ValueError(f"a {role} message must come before all questions")
            else:
                systems.append(_text(contents))
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from error
    if not turns:
        raise ValueError("there is no user message")
    turns = [{"question": join_messages(turn["messages"]), "answer": turn.get("answer")} for turn in turns]
    # 2. Images get positions in the questions, and the image contents their images.
    images = image_list(record)
    if images and not count_images(turns):
        turns = [dict(turn, question=marked_question(question_text(turn["question"]))) for turn in turns]
        turns = place_images(turns, len(images))
    contents = [content for turn in turns for content in question_contents(turn["question"])]
    locations = _locations(list(filter(is_image, contents)), images)
    # 3. The open question at the end is left out.
    if len(turns) > 1 and turns[-1]["answer"] is None:
        turns.pop()
    for turn in turns:
        contents = [IMAGE_CONTENT if is_image(content) else content for content in question_contents(turn["question"])]
        # A question without an image is a text.
        turn["question"] = contents if any(map(is_image, contents)) else question_text(contents)
        turn["answer"] = turn["answer"] or ""
    sample = {"id": name_of(record, "id"), "images": locations[: count_images(turns)], "turns": turns}
    return add_system(sample, record, systems)


@PARSERS.register_module(name="the_cauldron")
def the_cauldron(record: dict) -> dict:
    """Record of the_cauldron (huggingface.co/datasets/HuggingFaceM4/the_cauldron): `images`, and `texts` about them.

    Each of `texts` is a turn, `{"user": ..., "assistant": ...}`; all images are shown before the first question.
    """
    refuse_other_media(record)
    refuse_images(record)
    turns = []
    for entry in field(record, "texts", list):
        if not isinstance(entry, dict):
            raise ValueError(f"texts must hold objects, got {entry!r:.80}")
        turns.append({"question": field(entry, "user").strip(), "answer": field(entry, "assistant").strip()})
    return {"id": name_of(record, "id"), "images": image_list(record), "turns": turns}


def _messages(record: dict) -> list:
    if has(record, "messages") or not has(record, "prompt"):
        return field(record, "messages", list)
    texts = {"user": field(record, "prompt", (str, list)), "assistant": field(record, "completion", (str, list))}
    return [
        message
        for role, text in texts.items()
        for message in ([{"role": role, "content": text}] if isinstance(text, str) else text)
    ]


def _read_message(message: dict) -> tuple[str, list[dict]]:
    """Role and contents of a message. An image content has a `location`, or an `index`, where the message says so."""
    if not isinstance(message, dict):
        raise ValueError(f"a message must be an object, got {message!r:.80}")
    role = field(message, "role")
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}: choose among {', '.join(ROLES)}")
    refuse(message, UNSUPPORTED, "training would ignore it")
    if role == "assistant" and message.get("weight") == 0:
        raise ValueError("weight 0: every answer of a conversation is trained on")
    if role == "assistant" and not has(message, "content"):
        return role, []
    value = field(message, "content", (str, list))
    contents = [text_content(value)] if isinstance(value, str) else [_read_content(content) for content in value]
    if role != "user" and any(map(is_image, contents)):
        raise ValueError(f"an image in a message of {role}: only a user's can hold images")
    return role, contents


def _read_content(content: dict) -> dict:
    if not isinstance(content, dict):
        raise ValueError(f"a content must be an object, got {content!r:.80}")
    kind = field(content, "type")
    if kind in TEXT_TYPES:
        return text_content(field(content, "text"))
    if kind not in IMAGE_TYPES:
        raise ValueError(f"unknown type {kind!r} of a content: choose among {', '.join(TEXT_TYPES + IMAGE_TYPES)}")
    key = next((key for key in LOCATION_KEYS if has(content, key)), None)
    if key:
        url = field(content, key, (str, dict))
        return {**IMAGE_CONTENT, "location": url if isinstance(url, str) else field(url, "url")}
    return {**IMAGE_CONTENT, "index": field(content, "index", int)} if has(content, "index") else IMAGE_CONTENT


def _text(contents: Sequence[dict]) -> str:
    return "\n".join(content["text"] for content in contents)


def _locations(contents: Sequence[dict], images: Sequence[str]) -> list[str]:
    """Path or data URI of each image content: its own, or that of one of `images`."""
    locations, indices = [], []
    for content in contents:
        if "location" in content:
            locations.append(content["location"].strip())
            continue
        indices.append(content.get("index", len(indices)))
        if not 0 <= indices[-1] < len(images):
            raise ValueError(f"the image content with the index {indices[-1]} is not one of {len(images)} images")
        locations.append(images[indices[-1]])
    unused = set(range(len(images))) - set(indices)
    if unused:
        raise ValueError(f"no image content stands for {images[min(unused)]!r:.80}, one of {len(images)} images")
    return locations
