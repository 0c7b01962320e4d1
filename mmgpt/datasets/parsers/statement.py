"""Parsers of statements about images with a label: NLVR, NLVR2, SNLI-VE.

The question is the statement alone: a config adds the wording of the question by AddQuestion. Votes of single
annotators are not used, because an outvoted one would count as a right answer beside the label.
"""

from collections.abc import Sequence

from mmgpt.registry import PARSERS

from .fields import field, has, name_of, text_list

TRUTH = ("true", "false")
ENTAILMENT = ("entailment", "neutral", "contradiction")
NLVR_ORDERS = 6


@PARSERS.register_module(name="nlvr")
def nlvr(record: dict, split: str) -> dict:
    """Line of NLVR v1 (github.com/lil-lab/nlvr): a sentence about three drawn boxes.

    Its six images show the same boxes in different orders; PickImage chooses one.

    Args:
        record: `sentence`, `label`, `identifier`, `directory`.
        split: 'train', 'dev' or 'test'; not part of the records, but of the names of their images.
    """
    name = field(record, "identifier")
    images = [f"{_folder(record)}{split}-{name}-{order}.png" for order in range(NLVR_ORDERS)]
    return _statement(name, images, record, "sentence", "label", TRUTH)


@PARSERS.register_module(name="nlvr2")
def nlvr2(record: dict) -> dict:
    """Sentence about two photographs, left and right: a line of NLVR2's own files, or a record of LAVIS's list.

    The former have `identifier` ('train-10171-0-0': split, set, pair, sentence) and, in the training split only,
    `directory`; the latter the two paths as `images`.
    """
    if has(record, "images"):
        images = text_list(record, "images")
    else:
        stem = field(record, "identifier").rpartition("-")[0]
        images = [f"{_folder(record)}{stem}-img{side}.png" for side in (0, 1)]
    if len(images) != 2:
        raise ValueError(f"key 'images' must hold the left and the right image, got {images!r:.80}")
    return _statement(name_of(record, "identifier"), images, record, "sentence", "label", TRUTH)


@PARSERS.register_module(name="snli_ve")
def snli_ve(record: dict) -> dict:
    """Line of SNLI-VE (arXiv:1901.06706): whether a Flickr30k image entails the hypothesis `sentence2`.

    `sentence1`, the caption from which the labels were taken, is not used: the image takes its place.
    """
    image = f"{field(record, 'Flickr30K_ID', (str, int))}.jpg"
    return _statement(name_of(record, "pairID"), [image], record, "sentence2", "gold_label", ENTAILMENT)


def _statement(name: str, images: list[str], record: dict, text: str, label: str, choices: Sequence[str]) -> dict:
    turn = {"question": field(record, text).strip(), "answer": "", "choices": list(choices)}
    # Hidden test splits have no label, so that their answer is empty. NLVR writes 'true', NLVR2 'True'.
    if has(record, label):
        turn["answer"] = str(field(record, label, (str, bool))).strip().lower()
        if turn["answer"] not in choices:
            raise ValueError(f"key {label!r} must be one of {', '.join(choices)}, got {record[label]!r:.80}")
    return {"id": name, "images": images, "turns": [turn]}


def _folder(record: dict) -> str:
    return f"{field(record, 'directory', (str, int))}/" if has(record, "directory") else ""
