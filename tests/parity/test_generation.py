"""Generated ids against the published implementation: greedy, beams, left padding, and its demo's answers.

`suppress_tokens=None`: the published code may answer with `<image>` or padding, ours by default does not.
"""

import re
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor

from .beams import PublishedBeams
from .models import batch_of, built, expected_arrays, expected_json, folder, image_counts, image_tokens

ENTRIES = {(kind, name): entry for kind, named in expected_json("generation").items() for name, entry in named.items()}


def prompt_ids(text: str, tokenizer) -> list[int]:
    """The ids of a demo's prompt under the tokenizer of 2023: each piece between special tokens stripped and by itself.

    STAND-IN, to be replaced by the project's own function for published weights.
    """
    special = ["<s>", "</s>", tokenizer.pad_token, "<|endofchunk|>", "<image>"]
    encode = SentencePieceProcessor(str(folder() / "llama" / "tokenizer.model")).encode
    pieces = re.split(f"({'|'.join(map(re.escape, special))})", text)
    ids = [tokenizer.bos_token_id]
    for place, piece in enumerate(pieces):
        if piece in special:
            ids.append(tokenizer.convert_tokens_to_ids(piece))
            continue
        piece = piece.lstrip() if place else piece
        ids += encode(piece.rstrip() if place < len(pieces) - 1 else piece)
    return ids


def request(entry: dict, tokenizer) -> tuple[dict, dict, list[list[int]]]:
    """Model inputs, generation arguments and expected ids, prompt included, of an entry."""
    if "prompt_ids" in entry:
        return batch_of({**entry, "input_ids": entry["prompt_ids"]}), entry["kwargs"], entry["output_ids"]
    batch = {"input_ids": torch.tensor([prompt_ids(entry["prompt"], tokenizer)])}
    if entry.get("image"):
        image = expected_arrays("preprocess")[f"direct/{Path(entry['image']).name}"]
        batch.update(pixels=image[None, None], image_counts=torch.tensor([1]))
    # top_k is what the demo passes; without sampling it does nothing.
    generation = dict(max_new_tokens=entry["max_new_tokens"], num_beams=entry["num_beams"], top_k=50, do_sample=False)
    return batch, generation, [entry["output_ids"]]


def up_to_end(ids: list[int], eos: int) -> list[int]:
    """Ids up to and including the first end of sequence: what follows is padding."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids


def is_refused(entry: dict) -> bool:
    """Whether the entry has another number of images than of `<image>` tokens (see test_logits)."""
    case = {"input_ids": entry["prompt_ids"], "images": entry["images"]} if "prompt_ids" in entry else None
    return case is not None and image_tokens(case) != image_counts(case)


def answers(model, batch: dict, **generation) -> list[list[int]]:
    """New ids of each answer, up to its end."""
    eos = model.tokenizer.eos_token_id
    return [up_to_end(row, eos) for row in model.generate(**batch, suppress_tokens=None, **generation).tolist()]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_generated_ids(kind, name):
    entry, model = ENTRIES[kind, name], built(kind)
    batch, generation, outputs = request(entry, model.tokenizer)
    if is_refused(entry):
        with pytest.raises(ValueError, match="each image needs one token"):
            model.generate(**batch, **generation)
        return
    length = batch["input_ids"].shape[1]
    assert all(row[:length] in batch["input_ids"].tolist() for row in outputs)
    expected = [up_to_end(row[length:], model.tokenizer.eos_token_id) for row in outputs]
    scores_agree = True
    if generation.get("num_beams", 1) > 1:
        search = PublishedBeams()
        assert answers(model, batch, **generation, custom_generate=search) == expected
        # While no hypothesis ends before the others, all have one length, and how it is counted changes nothing.
        scores_agree = not search.ended_early
    if scores_agree:
        assert answers(model, batch, **generation) == expected
