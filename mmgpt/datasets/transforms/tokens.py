"""From text segments to token ids, with labels that are exact by segment."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import torch

from mmgpt.datasets.prompts import END_OF_CHUNK, EOS, IMAGE, Segment, prompt_text
from mmgpt.models.tokenizer import is_mark, load_tokenizer
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation

from .plain_text import PlainText

# Texts of more characters are not encoded as a whole when their beginning fills the length limit by far: a tokenizer
# takes thirty bytes for each character.
LONG_TEXT = 1_000_000
CHARACTERS = 64  # for each token of the limit, likewise
BEYOND = 64  # tokens above the limit that have to follow, so that the cut of the text changes none within it
IGNORE_INDEX = -100  # the label of a token that is not learned
TOKENIZATIONS = ("segments", "stripped")
META_KEYS = (
    "id",
    "dataset",
    "source",
    "file",
    "record",
    "images",
    "question",
    "answer",
    "answers",
    "choices",
    "prompt",
    "examples",
    "tags",
    "candidate_tokens",
)


class Piece(NamedTuple):
    """Text that is encoded as one, and for each of its characters whether it is learned; or one special token."""

    text: str
    learned: list[bool]
    special: bool = False


@lru_cache(maxsize=4)
def _tokenizer(folder: str):
    # Shared by the pipelines of all datasets of a run; imported here because reading data needs no model.

    return load_tokenizer(folder)


@lru_cache(maxsize=4)
def _plain_text(tokenizer) -> PlainText:

    return PlainText(tokenizer, is_mark)


@TRANSFORMS.register_module()
class TokenizeSegments:
    """Encodes `segments`: `input_ids` and `labels`, int64 (L,), the latter -100 where nothing is learned.

    A special segment becomes its id; all other text is encoded as plain text, so that `<image>` or `</s>` typed by a
    user stays text. The id of the sequence start comes first when the tokenizer has one.

    Tokens beyond `max_length` are cut at the right, and `cut` tells (length, limit, answer tokens lost). Of a text of
    more than a million characters only the beginning is encoded, so that these are the least that they can be. When
    nothing is left to learn, None is returned: the dataset counts it and takes another sample.

    Args:
        tokenizer: folder of a Hugging Face tokenizer, loaded with `models.tokenizer.load_tokenizer`, or such a one.
        max_length: in tokens.
        tokenization: 'segments' encodes each segment by itself, as it is. 'stripped' is what the published weights of
            MultiModal-GPT were trained with (the LlamaTokenizer of transformers 4.30): neighbouring texts are one
            piece, whitespace next to an `<image>`, line breaks included, is left out, and a piece that starts with a
            space keeps it behind the space that a sentencepiece tokenizer puts in front.

    Raises:
        ValueError: unknown tokenization; or an open prompt (evaluation, chat) is longer than `max_length`.
    """

    def __init__(self, tokenizer, max_length: int, tokenization: str = "segments"):
        if tokenization not in TOKENIZATIONS:
            raise ValueError(f"unknown tokenization {tokenization!r}: choose among {', '.join(TOKENIZATIONS)}")
        self.pieces = stripped_pieces if tokenization == "stripped" else single_pieces
        self.tokenizer = _tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.plain_text = _plain_text(self.tokenizer)
        self.max_length = max_length
        # Today's tokenizer of Llama puts no space in front of one; sentencepiece and the tokenizer of 2023 do.
        self.doubled = (" ", "▁") if tokenization == "stripped" and self._text_ids("x") == self._text_ids(" x") else ()
        self.special = {name: self.tokenizer.convert_tokens_to_ids(name) for name in (IMAGE, END_OF_CHUNK)}
        self.special[EOS] = self.tokenizer.eos_token_id

    def __call__(self, results: dict) -> dict | None:
        ids, labels = self.encode(results["segments"])
        length = len(ids)
        lost = sum(label != IGNORE_INDEX for label in labels[self.max_length :])
        if length > self.max_length:
            results["cut"] = (length, self.max_length, lost)
            if results["open"]:
                reason = f"a prompt of {length} tokens, the limit is {self.max_length}"
                raise SampleError(reason, SampleLocation.of(results))
        results["input_ids"] = torch.tensor(ids[: self.max_length])
        results["labels"] = torch.tensor(labels[: self.max_length])
        results["image_tokens"] = self.count_images(results["input_ids"])
        learned = (results["labels"] != IGNORE_INDEX).any()
        return results if learned or results["open"] else None

    def count_images(self, ids: torch.Tensor) -> int:
        """The number of `<image>` tokens among some ids."""
        return int((ids == self.special[IMAGE]).sum())

    def encode(self, segments: Sequence[Segment]) -> tuple[list[int], list[int]]:
        """Ids and labels of some segments, not cut; of more than LONG_TEXT characters those of a long beginning."""
        characters = max(LONG_TEXT, CHARACTERS * self.max_length)
        while True:
            kept = beginning(segments, characters)
            ids, labels = self._encode(kept)
            if kept is segments:
                return ids, labels
            if len(ids) >= self.max_length + BEYOND:
                # One token stands for the rest, so that an answer in it counts as lost.
                learned = any(segment.learned for segment in segments[len(kept) - 1 :])
                return [*ids, ids[-1]], [*labels, ids[-1] if learned else IGNORE_INDEX]
            characters *= 4

    def _encode(self, segments: Sequence[Segment]) -> tuple[list[int], list[int]]:
        bos = self.tokenizer.bos_token_id
        ids, labels = ([], []) if bos is None else ([bos], [IGNORE_INDEX])
        for piece in self.pieces(segments):
            piece_ids, learned = self._encode_piece(piece)
            ids += piece_ids
            labels += [token if learn else IGNORE_INDEX for token, learn in zip(piece_ids, learned, strict=True)]
        return ids, labels

    def _encode_piece(self, piece: Piece) -> tuple[list[int], list[bool]]:
        """Ids, and whether each is learned."""
        text, learned, special = piece
        if special:
            return [self.special[text]], learned[:1]
        if text.startswith(self.doubled):
            text, learned = " " + text, learned[:1] + learned
        if len(set(learned)) < 2:
            ids = self._text_ids(text)
            return ids, learned[:1] * len(ids)
        ids, spans = self.plain_text(text)
        # A token across two segments belongs to the one where it ends.
        return ids, [learned[end - 1] for _, end in spans]

    def _text_ids(self, text: str) -> list[int]:
        return self.plain_text(text)[0]


def beginning(segments: Sequence[Segment], characters: int) -> Sequence[Segment]:
    """The segments as they are, or, if they have more characters, their beginning up to a blank."""
    if sum(len(segment.text) for segment in segments) <= characters:
        return segments
    kept = []
    for segment in segments:
        if len(segment.text) > characters:
            end = segment.text.rfind(" ", max(0, characters - 1000), characters)
            return [*kept, segment._replace(text=segment.text[: end if end > 0 else characters])]
        kept.append(segment)
        characters -= len(segment.text)
    return kept


def single_pieces(segments: Sequence[Segment]) -> Iterator[Piece]:
    """Each segment as a piece of its own."""
    return (Piece(text, [learned] * len(text), special) for text, learned, special in segments)


def stripped_pieces(segments: Sequence[Segment]) -> Iterator[Piece]:
    """Neighbouring texts as one piece, without the whitespace that touches an image; special segments one by one."""
    runs = [list(run) for _, run in groupby(segments, key=lambda segment: segment.special)]
    for before, run, after in zip([[], *runs], runs, [*runs[1:], []], strict=False):
        if run[0].special:
            yield from single_pieces(run)
            continue
        text = prompt_text(run)
        start = len(text) - len(text.lstrip()) if before and before[-1].text == IMAGE else 0
        end = len(text.rstrip()) if after and after[0].text == IMAGE else len(text)
        learned = [segment.learned for segment in run for _ in segment.text]
        yield Piece(text[start:end], learned[start:end])


@TRANSFORMS.register_module()
class PackInputs:
    """Keeps what `collate_conversations` takes: `pixels`, `input_ids`, `labels`, `candidates`, `source`, `meta`.

    `meta` holds META_KEYS, as far as they are known, for metrics and logs. Images whose `<image>` token was cut away by
    the length limit are left out.

    Raises:
        ValueError: the sample has images, but the pipeline did not load them.
    """

    def __call__(self, results: dict) -> dict:
        pixels, count = results.get("pixels"), results["image_tokens"]
        if count and pixels is None:
            reason = f"{count} images, but no LoadImages, PrepareImages in its pipeline"
            raise SampleError(reason, SampleLocation.of(results))
        known = {**results, "images": results.get("own_images", results["images"])}
        return {
            "pixels": pixels[:count] if count else None,
            "input_ids": results["input_ids"],
            "labels": results["labels"],
            "candidates": results.get("candidates"),
            "source": results["source"],
            "meta": {key: known[key] for key in META_KEYS if key in known},
        }
