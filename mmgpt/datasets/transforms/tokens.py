"""From text segments to token ids, with labels that are exact by segment."""

from collections.abc import Sequence
from functools import lru_cache

import torch

from mmgpt.datasets.conversation import place_of
from mmgpt.datasets.prompts import EOS, IMAGE, Segment
from mmgpt.registry import TRANSFORMS

IGNORED = -100  # the label of a token that is not learned
META_KEYS = ("id", "dataset", "source", "file", "images", "question", "answer", "answers", "choices", "prompt")


@lru_cache(maxsize=4)
def _tokenizer(folder: str):
    # Shared by the pipelines of all datasets of a run; imported here because reading data needs no model.
    from mmgpt.models.language import load_tokenizer

    return load_tokenizer(folder)


@TRANSFORMS.register_module()
class TokenizeSegments:
    """Encodes `segments`: `input_ids` and `labels`, int64 (L,), the latter -100 where nothing is learned.

    A special segment becomes its id; all other text is encoded as plain text, so that `<image>` or `</s>` typed by a
    user stays text. The id of the sequence start comes first when the tokenizer has one.

    Tokens beyond `max_length` are cut at the right, and `cut` tells (length, limit, answer tokens lost). When nothing
    is left to learn, None is returned: the dataset counts it and takes another sample.

    Args:
        tokenizer: folder of a Hugging Face tokenizer, loaded with `models.language.load_tokenizer`, or such a one.
        max_length: in tokens.

    Raises:
        ValueError: an open prompt (evaluation, chat) is longer than `max_length`.
    """

    def __init__(self, tokenizer, max_length: int):
        self.tokenizer = _tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.max_length = max_length
        self.special = {IMAGE: self.tokenizer.convert_tokens_to_ids(IMAGE), EOS: self.tokenizer.eos_token_id}

    def __call__(self, results: dict) -> dict | None:
        ids, labels = self.encode(results["segments"])
        length = len(ids)
        lost = sum(label != IGNORED for label in labels[self.max_length :])
        if results["open"] and length > self.max_length:
            raise ValueError(f"{place_of(results)}: a prompt of {length} tokens, the limit is {self.max_length}")
        if length > self.max_length:
            results["cut"] = (length, self.max_length, lost)
        results["input_ids"] = torch.tensor(ids[: self.max_length])
        results["labels"] = torch.tensor(labels[: self.max_length])
        results["image_tokens"] = int((results["input_ids"] == self.special[IMAGE]).sum())
        learned = (results["labels"] != IGNORED).any()
        return results if learned or results["open"] else None

    def encode(self, segments: Sequence[Segment]) -> tuple[list[int], list[int]]:
        """Ids and labels of some segments, not cut."""
        bos = self.tokenizer.bos_token_id
        ids, labels = ([], []) if bos is None else ([bos], [IGNORED])
        for segment in segments:
            piece = self._ids(segment)
            ids += piece
            labels += piece if segment.learned else [IGNORED] * len(piece)
        return ids, labels

    def _ids(self, segment: Segment) -> list[int]:
        if segment.special:
            return [self.special[segment.text]]
        return self.tokenizer(segment.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@TRANSFORMS.register_module()
class PackInputs:
    """Keeps what `collate_conversations` takes: `pixels`, `input_ids`, `labels`, `source`, `meta`.

    `meta` holds META_KEYS, for metrics and logs. Images whose `<image>` token was cut away by the length limit are left
    out.

    Raises:
        ValueError: the sample has images, but the pipeline did not load them.
    """

    def __call__(self, results: dict) -> dict:
        pixels, count = results.get("pixels"), results["image_tokens"]
        if count and pixels is None:
            raise ValueError(f"{place_of(results)}: {count} images, but no LoadImages, PrepareImages in its pipeline")
        return {
            "pixels": pixels[:count] if count else None,
            "input_ids": results["input_ids"],
            "labels": results["labels"],
            "source": results["source"],
            "meta": {key: results[key] for key in META_KEYS},
        }
