"""Processor for transformers: messages with images -> the ids and pixels that mmgpt's chat makes of them."""

import base64
import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin

from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content
from mmgpt.datasets.segments import Segment
from mmgpt.datasets.transforms.images import upright_rgb
from mmgpt.datasets.transforms.pixels import clip_preprocessing, prepare_images, tile_cutter
from mmgpt.datasets.transforms.plain_text import PlainText
from mmgpt.datasets.transforms.tokens import segment_spans, stripped_spans
from mmgpt.models.special_tokens import is_mark
from mmgpt.models.vision.preprocessing import image_transform, normalization

from .source import FILE

# Unicode's characters for internal use. Between a chat template and the tokenizer, the first makes the next character
# literal, so that a typed `<image>` stays text, and the second separates texts that are encoded by themselves.
LITERAL, BOUNDARY = "\ufdd0", "\ufdd1"
CHAT = "chat"  # the tokenization of prompts by the tokenizer's own chat template
SYSTEM_ROLES = ("system", "developer")
# Template that writes the texts of a message, which are a whole prompt already.
TEXTS = "{% for content in messages[0].content if content.type == 'text' %}{{ content.text }}{% endfor %}"

_plain_text = lru_cache(maxsize=4)(partial(PlainText, is_mark=is_mark))
_own_template = lru_cache(maxsize=4)(ChatTemplate)


class MMGPTImageProcessor(BaseImageProcessor):
    """mmgpt's preparation of images: upright, RGB on white, then CLIP's preprocessing or that of another library.

    Args:
        size: {'height': S, 'width': S}, the sides of the square in pixels.
        image_mean, image_std: of the red, green and blue channel (of values from 0 to 1).
        interpolation: 'bicubic', 'bilinear' or 'nearest'.
        preprocessing: settings of the preprocessing of timm, open_clip or transformers (see `image_transform`); they
            take the place of all the others, but for the interpolation of tiles.
        resize_mode: 'shortest', 'longest' or 'squash' (see mmgpt's PrepareImages).
        tiles: arguments of `tile_cutter` that cut images into tiles; None: images are not cut.
    """

    model_input_names = ["pixel_values", "tile_ids"]

    def __init__(
        self,
        size: dict[str, int] | None = None,
        image_mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        image_std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        interpolation: str = "bicubic",
        preprocessing: dict | None = None,
        resize_mode: str = "shortest",
        tiles: dict | None = None,
        **kwargs,  # those of every image processor of transformers
    ):
        super().__init__(**kwargs)
        self.size = dict(size or {"height": 224, "width": 224})
        self.image_mean, self.image_std, self.interpolation = list(image_mean), list(image_std), interpolation
        self.preprocessing, self.resize_mode, self.tiles = preprocessing, resize_mode, tiles

    def fetch_images(self, images):
        """PIL images in place of paths, URLs and base64 texts, in the same nested lists; transparency stays."""
        return [self.fetch_images(image) for image in images] if isinstance(images, (list, tuple)) else _open(images)

    def preprocess(self, images, return_tensors: str | None = None) -> BatchFeature:
        """`pixel_values`, float32 (n, 3, H, W), of an image or of images in nested lists.

        With `tiles` they are frames (n, F, 3, H, W), whose places are `tile_ids` (n, F), -1 for padding.
        """
        values = self.image_mean, self.image_std, self.interpolation
        if self.preprocessing:
            prepare = image_transform(self.preprocessing)
            values = *normalization(self.preprocessing), self.interpolation
        else:
            prepare = clip_preprocessing(self.size["height"], *values, self.resize_mode)
        cut = tile_cutter(*values, **self.tiles) if self.tiles else None
        flat = [upright_rgb(image) for image in _flat(self.fetch_images(images))]
        pixels, tile_ids = prepare_images(flat, prepare, cut)
        data = {"pixel_values": pixels} if tile_ids is None else {"pixel_values": pixels, "tile_ids": tile_ids}
        return BatchFeature(data, tensor_type=return_tensors)

    def to_dict(self) -> dict:
        """Same as transformers', and where to find this class without the package mmgpt."""
        return {**super().to_dict(), "auto_map": {"AutoImageProcessor": f"{Path(FILE).stem}.MMGPTImageProcessor"}}


class MMGPTProcessor(ProcessorMixin):
    """Image processor and tokenizer of an MMGPTForConditionalGeneration.

    Args:
        image_processor: a MMGPTImageProcessor.
        tokenizer: the model's.
        chat_template: Jinja template that writes `<image>` for an image; with tokenization='chat' the tokenizer's own.
        tokenization: 'segments' or 'stripped' (see mmgpt's TokenizeSegments), or 'chat' (see mmgpt's ChatTemplate).
        add_bos_token: whether texts begin with the start of sequence; the tokenizer's own template writes it itself.
        system_prompt: the system text of conversations without one.
        prompt_template: mmgpt's own prompt template that `chat_template` was made from, for MMGPTCollator.
    """

    def __init__(
        self,
        image_processor: MMGPTImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        tokenization: str = "segments",
        add_bos_token: bool = True,
        system_prompt: str = "",
        prompt_template: dict[str, str] | None = None,
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.tokenization, self.image_token = tokenization, "<image>"
        self.add_bos_token, self.system_prompt = add_bos_token, system_prompt
        self.prompt_template = prompt_template
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)

    def apply_chat_template(self, conversation, chat_template: str | None = None, tokenize: bool = False, **kwargs):
        """Same as transformers', whose keywords these are; special tokens in the texts of messages stay text.

        In a prompt that is not tokenized (tokenize=False) they are not told apart from those of the template.

        Raises:
            ValueError: tools or documents, which the model was not trained with; or the tokenizer's own template
                refuses the messages, or is not the one to use.
        """
        for name in ("tools", "documents"):
            if kwargs.get(name):
                raise ValueError(f"{name}: the prompts of this model have none")
        marked = self._marked
        if self.tokenization == CHAT:
            if chat_template is not None:
                raise ValueError("chat_template: the prompts of this model are written by its tokenizer's own template")
            chat_template, continued = TEXTS, kwargs.pop("continue_final_message", False)
            marked = partial(self._rendered, continued=continued)
        batched = isinstance(conversation[0], (list, tuple))
        conversations = [self._with_system(messages) for messages in (conversation if batched else [conversation])]
        marked = [marked(messages) for messages in conversations]
        output = super().apply_chat_template(
            marked if batched else marked[0], chat_template, tokenize=tokenize, **kwargs
        )
        if tokenize:
            return output
        return [_unmarked(text) for text in output] if batched else _unmarked(output)

    def __call__(self, images=None, text: str | list[str] | None = None, **kwargs) -> BatchFeature:
        """`input_ids` and `attention_mask` (B, L) of texts, and `pixel_values` (n, 3, H, W) of the images in them.

        With tiles, the images are `pixel_values` and `tile_ids` as the image processor returns them.

        Special tokens in a text are special, except for those that `apply_chat_template` marked.

        Args:
            images: an image, a list of all images, or a list of lists, one for each text.
            text: prompts with an `<image>` for each image.
            kwargs: transformers' (padding, padding_side, max_length, return_tensors, ...).

        Raises:
            ValueError: another number of images than of `<image>`; or truncation, which would cut off images.
        """
        settings = self._merge_kwargs(ProcessingKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_settings, data = settings["text_kwargs"], {}
        if text_settings.get("truncation"):
            raise ValueError("truncation=True: a prompt is not cut, since images would be lost")
        if text is not None:
            rows = [self._encode(row, text_settings) for row in ([text] if isinstance(text, str) else text)]
            tokens = [row.count(self.image_token_id) for row in rows]
            nested = isinstance(images, (list, tuple)) and any(isinstance(row, (list, tuple)) for row in images)
            counts = [len(row) for row in images] if nested else [0 if images is None else len(list(_flat(images)))]
            if counts != (tokens if nested else [sum(tokens)]):
                raise ValueError(f"{counts} images for texts with {tokens} {self.image_token}: each image needs one")
            names = ("padding", "padding_side", "max_length", "pad_to_multiple_of")
            padding = {name: text_settings[name] for name in names if text_settings.get(name) is not None}
            data.update(self.tokenizer.pad({"input_ids": rows}, **{"padding": False, **padding}))
        if images is not None and list(_flat(images)):
            data.update(self.image_processor(images, settings["images_kwargs"].get("return_tensors")))
        return BatchFeature(data, tensor_type=text_settings.get("return_tensors"))

    def to_dict(self) -> dict:
        """Same as transformers', and where to find this class without the package mmgpt."""
        return {**super().to_dict(), "auto_map": {"AutoProcessor": f"{Path(FILE).stem}.MMGPTProcessor"}}

    def _with_system(self, messages: Sequence[dict]) -> list[dict]:
        """Messages with the model's system text where they have none."""
        if any(_text(message) for message in messages if message["role"] in SYSTEM_ROLES):
            return list(messages)
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, *(message for message in messages if message["role"] not in SYSTEM_ROLES)]

    def _rendered(self, messages: Sequence[dict], continued: bool) -> list[dict]:
        """One message of the images of messages, and of the prompt that the tokenizer's own template writes for them.

        Args:
            continued: whether the prompt ends with the words of the last answer.
        """
        turns, system = _turns(messages)
        if continued and "answer" not in turns[-1]:
            raise ValueError("continue_final_message: the last message is not an answer")
        segments = _own_template(self.tokenizer).format_turns(turns, system=system)
        if continued and turns[-1]["answer"]:
            # The token that ends the answer is the last one with a label.
            segments = segments[: max(i for i, segment in enumerate(segments) if segment.supervised)]
        prompt = "".join(part.text if part.special else self._literal(part.text) for part in segments)
        images = [part for message in messages for part in _contents(message) if part["type"] != "text"]
        # A boundary at the beginning says that the template has written the start of the sequence.
        return [{"role": "user", "content": [*images, text_content(BOUNDARY + prompt)]}]

    def _marked(self, messages: Sequence[dict]) -> list[dict]:
        """Messages whose texts are literal, and whose answers, which are encoded by themselves, are separated."""
        marked = []
        for message in messages:
            content, answer = message["content"], message["role"] == "assistant"
            if isinstance(content, str):
                content = self._literal(content, answer)
            else:
                content = [
                    {**part, "text": self._literal(part["text"], answer)} if part["type"] == "text" else part
                    for part in content
                ]
            marked.append({**message, "content": content})
        return marked

    def _literal(self, text: str, answer: bool = False) -> str:
        text = text.strip() if answer else text
        # The first character is marked too, so that no special token begins in the text before and ends in this one.
        pattern = rf"{LITERAL}|{BOUNDARY}|{self._special}|\A."
        literal = re.sub(pattern, lambda match: LITERAL + match[0], text, flags=re.DOTALL)
        return f"{BOUNDARY}{literal}{BOUNDARY}" if answer else literal

    @property
    def _special(self) -> str:
        """Regular expression of the tokenizer's special tokens and marks, longer ones first."""
        names = sorted(_plain_text(self.tokenizer).names.values(), key=len, reverse=True)
        return "|".join(map(re.escape, names))

    def _segments(self, text: str) -> Iterator[Segment]:
        """Text in pieces that are encoded by themselves, and special tokens."""
        literal, position = "", 0
        for match in re.finditer(f"{LITERAL}(.)|{BOUNDARY}|({self._special})", text, re.DOTALL):
            literal += text[position : match.start()] + (match[1] or "")
            position = match.end()
            if match[1]:
                continue
            if literal:
                yield Segment(literal)
                literal = ""
            if match[2]:
                yield Segment(match[2], special=True)
        if literal or position < len(text):
            yield Segment(literal + text[position:])

    def _encode(self, text: str, settings: dict) -> list[int]:
        """Token ids, as TokenizeSegments of mmgpt makes them; a start of the sequence comes first, if there is one."""
        tokenizer, plain_text, ids = self.tokenizer, _plain_text(self.tokenizer), []
        spans = stripped_spans if self.tokenization == "stripped" else segment_spans
        # Current Llama tokenizers add no space to a text that starts with one; sentencepiece and those of 2023 do.
        doubles = self.tokenization == "stripped" and plain_text("x")[0] == plain_text(" x")[0]
        for span in spans(list(self._segments(text))):
            if span.special:
                ids.append(tokenizer.convert_tokens_to_ids(span.text))
            else:
                # Within a text that is encoded as a whole, only its beginning gets the space that some tokenizers add.
                encoder = plain_text.inner if self.tokenization == CHAT and ids else plain_text
                ids += encoder(f" {span.text}" if doubles and span.text.startswith((" ", "▁")) else span.text)[0]
        start = tokenizer.bos_token_id
        starts = self.add_bos_token and settings.get("add_special_tokens", True) and not text.startswith(BOUNDARY)
        if starts and ids[:1] != [start]:
            ids.insert(0, start)
        return ids


def _contents(message: dict) -> list[dict]:
    content = message["content"]
    return [text_content(content)] if isinstance(content, str) else content


def _text(message: dict) -> str:
    return "".join(content["text"] for content in _contents(message) if content["type"] == "text")


def _turns(messages: Sequence[dict]) -> tuple[list[dict], str]:
    """The turns of messages, as a sample has them, and their system text.

    Raises:
        ValueError: the roles are out of order, there is no question, or an image is not in one.
    """
    systems, turns = [], []
    for message in messages:
        role, contents = message["role"], _contents(message)
        answered = not turns or "answer" in turns[-1]
        if role != "user" and any(content["type"] != "text" for content in contents):
            raise ValueError(f"only messages of user have images, not those of {role}")
        if role in SYSTEM_ROLES and not turns:
            systems.append(_text(message))
        elif role == "user" and answered:
            question = [
                text_content(content["text"]) if content["type"] == "text" else IMAGE_CONTENT for content in contents
            ]
            turns.append({"question": question})
        elif role == "assistant" and not answered:
            turns[-1]["answer"] = _text(message).strip()
        else:
            raise ValueError(f"the roles are system, then user and assistant in turn: {role}")
    if not turns:
        raise ValueError("there is no message of user")
    return turns, "\n\n".join(systems)


def _unmarked(text: str) -> str:
    return re.sub(f"{LITERAL}(.)|{BOUNDARY}", lambda match: match[1] or "", text, flags=re.DOTALL)


def _flat(images) -> Iterator:
    """Yields the images of nested lists."""
    if not isinstance(images, (list, tuple)):
        images = [images]
    for image in images:
        if isinstance(image, (list, tuple)):
            yield from _flat(image)
        else:
            yield image


def _open(image: Image.Image | str | os.PathLike) -> Image.Image:
    """PIL image of a path, a URL, or a base64 text; transformers' own function would drop transparency.

    Raises:
        ValueError: none of these.
    """
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, (str, os.PathLike)):
        raise ValueError(f"an image is a PIL image, a path, a URL or base64, not a {type(image).__name__}")
    if os.path.isfile(image):
        return Image.open(image)
    if str(image).startswith(("http://", "https://")):
        return Image.open(BytesIO(httpx.get(str(image), follow_redirects=True).raise_for_status().content))
    try:
        return Image.open(BytesIO(base64.b64decode(str(image).rpartition(",")[2], validate=True)))
    except Exception as error:  # of base64 and of Pillow's plugins
        raise ValueError(
            f"{str(image)[:80]!r} is neither an image file nor a URL or base64 text of an image"
        ) from error
