"""Conversion of a chat request's messages to a `Conversation`."""

from collections.abc import Iterator, Sequence

from mmgpt.apis import Conversation
from mmgpt.datasets.conversation import IMAGE_CONTENT, join_messages, text_content
from mmgpt.server.errors import ApiError
from mmgpt.server.image_urls import ImageDecoder
from mmgpt.server.schema import ImageContent, Message, TextContent
from mmgpt.server.settings import Settings

INSTRUCTION_ROLES = ("system", "developer")


def image_params(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Yield the parameter, as errors name it, and the URL of each image of the messages."""
    for number, message in enumerate(messages):
        for index, content in enumerate(message.content):
            if isinstance(content, ImageContent):
                yield f"messages[{number}].content[{index}].image_url.url", content.image_url.url


def check_size(messages: Sequence[Message], settings: Settings) -> None:
    """Check of a conversation against the settings' limits; ApiError where it is longer."""
    contents = [content for message in messages for content in message.content]
    sizes = {
        "turns": (sum(message.role == "user" for message in messages), settings.max_turns),
        "images": (sum(isinstance(content, ImageContent) for content in contents), settings.max_images),
        "characters": (
            sum(len(content.text) for content in contents if isinstance(content, TextContent)),
            settings.max_characters,
        ),
    }
    for name, (size, limit) in sizes.items():
        if size > limit:
            raise ApiError(400, f"the conversation has {size} {name}: at most {limit} are accepted", "messages")


def to_conversation(messages: Sequence[Message], images: ImageDecoder) -> Conversation:
    """Conversation whose last question is open. All its texts are literal.

    System and developer messages are its system text. User messages that follow each other are one question.

    Raises:
        ApiError: 400, where an image is not accepted, or the roles are out of order. The order is instructions, then
            user and assistant in turn, user last.
    """
    # 1. Messages become turns.
    instructions, turns = [], []
    for number, message in enumerate(messages):
        param = f"messages[{number}]"
        if message.role in INSTRUCTION_ROLES:
            _check_order(not turns, param, f"a {message.role} message must come before all questions")
            instructions.append(_text(message, param))
        elif message.role == "user":
            if not turns or "answer" in turns[-1]:
                turns.append({"question": []})
            contents = [
                IMAGE_CONTENT if isinstance(content, ImageContent) else text_content(content.text)
                for content in message.content
            ]
            turns[-1]["question"].append(contents)
        else:
            _check_order(turns and "answer" not in turns[-1], param, "an assistant message must answer a user message")
            turns[-1]["answer"] = _text(message, param).strip()
    _check_order(turns and "answer" not in turns[-1], param, "the last message must be a user's")
    for turn in turns:
        turn["question"] = join_messages(turn["question"])
    # 2. Images are decoded.
    decoded = []
    for param, url in image_params(messages):
        try:
            decoded.append(images.open(url))
        except ValueError as error:
            raise ApiError(400, f"{param}: {error}", param) from error
    return Conversation(turns, decoded, "\n\n".join(instructions))


def _check_order(condition: object, param: str, message: str) -> None:
    if not condition:
        raise ApiError(400, f"{param}: {message}", f"{param}.role")


def _text(message: Message, param: str) -> str:
    """The text of a message that cannot hold images."""
    if any(isinstance(content, ImageContent) for content in message.content):
        raise ApiError(400, f"{param}: only user messages can hold images", f"{param}.content")
    return "\n".join(content.text for content in message.content)
