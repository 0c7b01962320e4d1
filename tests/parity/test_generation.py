"""Generated ids against the published implementation: greedy, beams, left padding, and its demo's answers.

`beam_scores="text"` is how the transformers of that time scored beams. `suppress_tokens=None`: the published code may
answer with `<image>` or padding, ours by default does not.
"""

from pathlib import Path

import pytest
import torch

from mmgpt.datasets.transforms import TokenizeSegments
from tests.helpers.parity_models import batch_of, built, expected_arrays, expected_json, image_counts, image_tokens
from tests.parity.test_tokens import prompt_segments

ENTRIES = {(kind, name): entry for kind, named in expected_json("generation").items() for name, entry in named.items()}


def request(entry: dict, tokenizer) -> tuple[dict, dict, list[list[int]]]:
    """Model inputs, generation arguments and expected ids, prompt included, of an entry."""
    if "prompt_ids" in entry:
        return batch_of({**entry, "input_ids": entry["prompt_ids"]}), entry["kwargs"], entry["output_ids"]
    batch = {"input_ids": torch.tensor([_prompt_ids(entry["prompt"], tokenizer)])}
    if entry.get("image"):
        image = expected_arrays("preprocess")[f"direct/{Path(entry['image']).name}"]
        batch.update(pixels=image[None, None], image_counts=torch.tensor([1]))
    # top_k is what the demo passes; without sampling it does nothing.
    generation = dict(max_new_tokens=entry["max_new_tokens"], num_beams=entry["num_beams"], top_k=50, do_sample=False)
    return batch, generation, [entry["output_ids"]]


def _prompt_ids(text: str, tokenizer) -> list[int]:
    return TokenizeSegments(tokenizer, len(text), "stripped").encode(prompt_segments(text))[0]


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
    assert answers(model, batch, **generation, beam_scores="text") == expected
