"""Messages of a chat request to a `Conversation`."""

from collections.abc import Iterator, Sequence

from mmgpt.apis import Conversation
from mmgpt.datasets.conversation import IMAGE_CONTENT, is_image, lead_text, text_content
from mmgpt.server.errors import ApiError
from mmgpt.server.images import Pictures
from mmgpt.server.schema import ImagePart, Message, Part, TextPart
from mmgpt.server.settings import Settings

INSTRUCTIONS = ("system", "developer")


def image_places(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Yield the place, as errors name it, and the URL of each picture of some messages."""
    for number, message in enumerate(messages):
        for index, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                yield f"messages[{number}].content[{index}].image_url.url", part.image_url.url


def check_size(messages: Sequence[Message], settings: Settings) -> None:
    """Raise an ApiError where a conversation is longer than the settings allow."""
    texts = [part.text for message in messages for part in message.content if isinstance(part, TextPart)]
    sizes = {
        "turns": (sum(message.role == "user" for message in messages), settings.max_turns),
        "pictures": (sum(1 for _ in image_places(messages)), settings.max_images),
        "characters": (sum(map(len, texts)), settings.max_characters),
    }
    for name, (size, limit) in sizes.items():
        if size > limit:
            raise ApiError(400, f"the conversation has {size} {name}: at most {limit} are accepted", "messages")


def to_conversation(messages: Sequence[Message], pictures: Pictures) -> Conversation:
    """A conversation whose last question is open.

    What system and developer messages say is put before the first question, behind its leading pictures: the template
    that models are tuned with has no other place for it. All texts are literal.

    User messages that follow each other are one question.

    Raises:
        ApiError: 400: a picture is not accepted, or the roles are not in order: instructions, then user and assistant
            in turn, user last.
    """
    instructions, turns = [], []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if message.role in INSTRUCTIONS:
            _check_order(not turns, place, f"a {message.role} message must come before all questions")
            instructions.append(_text(message, place))
        elif message.role == "user":
            if not turns or "answer" in turns[-1]:
                turns.append({"question": []})
            turns[-1]["question"] += images_first(message.content)
        else:
            _check_order(turns and "answer" not in turns[-1], place, "an assistant message must answer a user message")
            turns[-1]["answer"] = _text(message, place).strip()
    _check_order(turns and "answer" not in turns[-1], place, "the last message must be a user's")
    for turn in turns:
        turn["question"] = _question(images_first(turn["question"]))
    turns[0]["question"] = lead_text("\n\n".join(instructions), turns[0]["question"])
    return Conversation(turns, [_open(pictures, *place) for place in image_places(messages)])


def _check_order(right: object, place: str, message: str) -> None:
    if not right:
        raise ApiError(400, f"{place}: {message}", f"{place}.role")


def images_first(content: Sequence[Part]) -> list[Part]:
    """The content of a question; images behind all of the text go before it, where no other lies within the text.

    It means the same, and models are tuned that way (see the parser of LLaVA's dialogues).
    """
    images = [part for part in content if isinstance(part, ImagePart)]
    texts = [part for part in content if isinstance(part, TextPart)]
    leading = next((i for i, part in enumerate(content) if isinstance(part, TextPart)), len(content))
    return [*images, *texts] if list(content[leading : leading + len(texts)]) == texts else list(content)


def _question(content: Sequence[Part]) -> list[dict]:
    """The content of a question as a conversation has it, neighbouring texts on lines of their own."""
    parts: list[dict] = []
    for part in content:
        if isinstance(part, ImagePart):
            parts.append(IMAGE_CONTENT)
        else:
            follows = bool(parts) and not is_image(parts[-1])
            parts.append(text_content("\n" * follows + part.text))
    return parts


def _text(message: Message, place: str) -> str:
    if any(isinstance(part, ImagePart) for part in message.content):
        raise ApiError(400, f"{place}: only user messages can hold pictures", f"{place}.content")
    return "\n".join(part.text for part in message.content)


def _open(pictures: Pictures, place: str, url: str):
    try:
        return pictures.open(url)
    except ValueError as error:
        raise ApiError(400, f"{place}: {error}", place) from error
