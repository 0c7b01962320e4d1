"""From text segments to token ids, with labels that are exact by segment."""

import os
import sys
from collections.abc import Iterator, Sequence
from copy import copy
from functools import lru_cache, partial
from itertools import groupby
from typing import NamedTuple

import torch

from mmgpt.datasets.prompts import EOS
from mmgpt.datasets.segments import IMAGE, Segment, prompt_text
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.models.special_tokens import is_mark, starts_texts
from mmgpt.models.tokenizer import shared_tokenizer
from mmgpt.registry import TRANSFORMS
from mmgpt.utils.errors import SampleError, SampleLocation

from .plain_text import PlainText

# Longer texts are encoded only up to this number of characters, if that gives more tokens than the limit: a tokenizer
# takes thirty bytes of memory for each character.
LONG_TEXT = 1_000_000
CHARACTERS = 64  # The same bound, in characters for each token of the limit; the larger of the two counts.
MARGIN = 64  # tokens above the limit that must follow, so that cutting the text changes no token within the limit
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


class TextSpan(NamedTuple):
    """Text that is encoded as a whole, and for each character whether its token has a label; or one special token."""

    text: str
    supervised: list[bool]
    special: bool = False


_shared_plain_text = lru_cache(maxsize=4)(partial(PlainText, is_mark=is_mark))


class PromptTooLong(SampleError):
    """Error about an open prompt with more tokens than the limit."""


@TRANSFORMS.register_module()
class TokenizeSegments:
    """Encodes `segments` as `input_ids` and `labels`, int64 (L,), the latter -100 for tokens that the loss ignores.

    A special segment becomes its id; all other text is encoded as plain text, so that `<image>` or `</s>` typed by a
    user stays text. The segments of a chat template are encoded as transformers encodes its text as a whole.

    Separate turns (see SeparateTurns) are encoded each by itself, and stand one after the other behind the tokens that
    all of them begin with, such as the system text and the images. `turn_ids`, int64 (L,), are 0 there and then the
    number of the turn, from 1 on: a model computes each turn as if it were alone (see `models.packing`).

    Tokens beyond `max_length` are cut off at the right, of each separate turn by itself, and `cut` becomes (length,
    limit, label tokens cut off). Of a text of more than a million characters only the beginning is encoded, so that
    these numbers are lower bounds.
    Without any label token the result is None: the dataset counts the sample and takes another.

    Args:
        tokenizer: tokenizer of `models.tokenizer.load_tokenizer`, or the folder that it is loaded from.
        max_length: length limit in tokens; None: none.
        tokenization: 'segments' encodes each segment by itself, unchanged. 'stripped' is what the published weights of
            MultiModal-GPT were trained with (the LlamaTokenizer of transformers 4.30): neighboring texts are encoded as
            one, whitespace next to an `<image>`, including line breaks, is removed, and a text that starts with a space
            keeps it after the space that a sentencepiece tokenizer adds.
        add_bos_token: whether the id of the sequence start comes first, if the tokenizer has one; None: where the
            tokenizer puts it in front of texts. Chat templates write their own.

    Raises:
        ValueError: unknown tokenization, or 'stripped' with a chat template; a special token that is not in the
            tokenizer; a length limit or `add_bos_token` of another kind.
        PromptTooLong: an open prompt (evaluation, chat) is longer than `max_length`.
    """

    def __init__(
        self, tokenizer, max_length: int | None, tokenization: str = "segments", add_bos_token: bool | None = None
    ):
        if tokenization not in TOKENIZATIONS:
            raise ValueError(f"unknown tokenization {tokenization!r}: choose among {', '.join(TOKENIZATIONS)}")
        if max_length is not None and (type(max_length) is not int or max_length < 1):
            raise ValueError(f"max_length={max_length!r} (chat: chat_max_length): choose 1 or more tokens, or None")
        if add_bos_token not in (None, True, False):
            raise ValueError(f"add_bos_token={add_bos_token!r}: choose one of True, False and None (as the tokenizer)")
        self.spans = stripped_spans if tokenization == "stripped" else segment_spans
        self.tokenizer = shared_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.plain_text = _shared_plain_text(self.tokenizer)
        self.max_length = sys.maxsize if max_length is None else max_length
        # Current Llama tokenizers add no space to a text that starts with one; sentencepiece and those of 2023 do.
        adds_no_space = self._text_ids("x") == self._text_ids(" x")
        self.doubled_spaces = (" ", "▁") if tokenization == "stripped" and adds_no_space else ()
        self.special = {**self.tokenizer.get_added_vocab(), EOS: self.tokenizer.eos_token_id}
        add_bos_token = starts_texts(self.tokenizer) if add_bos_token is None else add_bos_token
        self.start = [self.tokenizer.bos_token_id] if add_bos_token and self.tokenizer.bos_token else []

    def __call__(self, results: dict) -> dict | None:
        if "turn_segments" in results:
            return self._separate_turns(results)
        ids, labels = self._within_limit(results, results["segments"])
        if "cut" in results and results["open"]:
            reason = f"a prompt of {results['cut'][0]} tokens, the limit is {self.max_length}"
            raise PromptTooLong(reason, SampleLocation.of(results))
        results["input_ids"], results["labels"] = torch.tensor(ids), torch.tensor(labels)
        results["image_tokens"] = self.count_images(results["input_ids"])
        has_labels = (results["labels"] != IGNORE_INDEX).any()
        return results if has_labels or results["open"] else None

    def _within_limit(self, results: dict, segments: Sequence[Segment]) -> tuple[list[int], list[int]]:
        """Token ids and labels of segments up to the length limit; sets `cut` where there are more."""
        ids, labels = self.encode(segments)
        if len(ids) > self.max_length:
            truncated = sum(label != IGNORE_INDEX for label in labels[self.max_length :])
            results["cut"] = (len(ids), self.max_length, truncated)
        return ids[: self.max_length], labels[: self.max_length]

    def _separate_turns(self, results: dict) -> dict | None:
        """The results with the tokens of separate turns, None without any label token."""
        encoded = [self._within_limit(results, segments) for segments in results["turn_segments"]]
        turns = [(ids, labels) for ids, labels in encoded if set(labels) - {IGNORE_INDEX}]
        if not turns:
            return None
        # The token before an answer, which predicts its first token, is the turn's own.
        answers = [next(i for i, label in enumerate(labels) if label != IGNORE_INDEX) for _, labels in turns]
        shared = os.path.commonprefix([ids[: max(min(answers) - 1, 0)] for ids, _ in turns])
        count = len(shared)
        parts = [(shared, [IGNORE_INDEX] * count), *((ids[count:], labels[count:]) for ids, labels in turns)]
        results["input_ids"], results["labels"] = (torch.tensor(sum(lists, [])) for lists in zip(*parts, strict=True))
        results["turn_ids"] = torch.cat([torch.full((len(ids),), turn) for turn, (ids, _) in enumerate(parts)])
        results["image_tokens"] = self.count_images(results["input_ids"])
        if results["image_tokens"] != len(results["images"]):
            reason = "its turns cannot be separate: an image stands behind words in which they differ, or is cut off"
            raise SampleError(reason, SampleLocation.of(results))
        return results

    def limited(self, max_length: int) -> "TokenizeSegments":
        """A copy that takes no more than `max_length` tokens, nor more than this one."""
        other = copy(self)
        other.max_length = min(self.max_length, max_length)
        return other

    def count_images(self, ids: torch.Tensor) -> int:
        """Number of `<image>` tokens among token ids."""
        return int((ids == self.special[IMAGE]).sum())

    def encode(self, segments: Sequence[Segment]) -> tuple[list[int], list[int]]:
        """Token ids and labels of segments, not truncated; of a long text (LONG_TEXT) those of its beginning."""
        characters = max(LONG_TEXT, CHARACTERS * self.max_length)
        rendered = any(segment.rendered for segment in segments)
        if rendered and self.spans is stripped_spans:
            raise ValueError("tokenization='stripped' is for the prompt templates of the published weights, not 'chat'")
        spans, start = (joined_spans, []) if rendered else (self.spans, self.start)
        while True:
            first_segments = beginning(segments, characters)
            ids, labels = list(start), [IGNORE_INDEX] * len(start)
            for text, supervised, special in spans(first_segments):
                # Within a text that is encoded as a whole, only its beginning gets the space that some tokenizers add.
                plain_text = self.plain_text.inner if rendered and ids else self.plain_text
                if text.startswith(self.doubled_spaces) and not special:
                    text, supervised = " " + text, supervised[:1] + supervised
                if special:
                    if text not in self.special:
                        raise ValueError(f"a prompt has the special token {text!r}, which the tokenizer does not have")
                    span_ids, has_label = [self.special[text]], supervised[:1]
                elif len(set(supervised)) < 2:
                    span_ids = plain_text(text)[0]
                    has_label = supervised[:1] * len(span_ids)
                else:
                    span_ids, offsets = plain_text(text)
                    # A token across two segments belongs to the segment in which it ends.
                    has_label = [supervised[end - 1] for _, end in offsets]
                ids += span_ids
                labels += [token if label else IGNORE_INDEX for token, label in zip(span_ids, has_label, strict=True)]
            if first_segments is segments:
                return ids, labels
            if len(ids) >= self.max_length + MARGIN:
                # One token represents the rest, so that an answer in it counts as cut off.
                has_labels = any(segment.supervised for segment in segments[len(first_segments) - 1 :])
                return [*ids, ids[-1]], [*labels, ids[-1] if has_labels else IGNORE_INDEX]
            characters *= 4

    def _text_ids(self, text: str) -> list[int]:
        return self.plain_text(text)[0]


def beginning(segments: Sequence[Segment], characters: int) -> Sequence[Segment]:
    """The segments themselves, or, if they have more characters, their beginning up to a space."""
    if sum(len(segment.text) for segment in segments) <= characters:
        return segments
    first_segments = []
    for segment in segments:
        if len(segment.text) > characters:
            end = segment.text.rfind(" ", max(0, characters - 1000), characters)
            return [*first_segments, segment._replace(text=segment.text[: end if end > 0 else characters])]
        first_segments.append(segment)
        characters -= len(segment.text)
    return first_segments


def segment_spans(segments: Sequence[Segment]) -> Iterator[TextSpan]:
    """A span for each segment."""
    return (TextSpan(segment.text, [segment.supervised] * len(segment.text), segment.special) for segment in segments)


def joined_spans(segments: Sequence[Segment]) -> Iterator[TextSpan]:
    """A span for neighboring texts, and a span for each special segment."""
    for special, run in groupby(segments, key=lambda segment: segment.special):
        run = list(run)
        if special:
            yield from segment_spans(run)
        else:
            yield TextSpan(prompt_text(run), [segment.supervised for segment in run for _ in segment.text])


def stripped_spans(segments: Sequence[Segment]) -> Iterator[TextSpan]:
    """A span for neighboring texts, without the whitespace next to an image, and a span for each special segment."""
    spans = list(joined_spans(segments))
    for before, span, after in zip([None, *spans], spans, [*spans[1:], None], strict=False):
        text, supervised, special = span
        start = len(text) - len(text.lstrip()) if before and before.special and before.text == IMAGE else 0
        end = len(text.rstrip()) if after and after.special and after.text == IMAGE else len(text)
        yield span if special else TextSpan(text[start:end], supervised[start:end])


@TRANSFORMS.register_module()
class PackInputs:
    """Selects the inputs of `collate_conversations`.

    They are `pixels`, `tile_ids`, `input_ids`, `labels`, `turn_ids`, `candidates`, `source` and `meta`: those of
    META_KEYS that the sample has, for metrics and logs. Images whose `<image>` token is cut off by the length limit are
    left out.

    Raises:
        SampleError: the sample has images, but the pipeline does not load them.
    """

    def __call__(self, results: dict) -> dict:
        pixels, count = results.get("pixels"), results["image_tokens"]
        if count and pixels is None:
            reason = f"{count} images, but no LoadImages and PrepareImages in its pipeline"
            raise SampleError(reason, SampleLocation.of(results))
        tile_ids = results.get("tile_ids")
        meta = {**results, "images": results.get("own_images", results["images"])}
        return {
            "pixels": pixels[:count] if count else None,
            "tile_ids": tile_ids[:count] if count and tile_ids is not None else None,
            "input_ids": results["input_ids"],
            "labels": results["labels"],
            "turn_ids": results.get("turn_ids"),
            "candidates": results.get("candidates"),
            "source": results["source"],
            "meta": {key: meta[key] for key in META_KEYS if key in meta},
        }
