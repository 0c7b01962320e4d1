"""Streaming: whole characters only, errors arrive, and the generating thread ends with its listener."""

import queue
import threading
import time
from pathlib import Path

import pytest
import torch

from mmgpt.apis.streaming import TextPieces, stream_text
from mmgpt.models.language import load_tokenizer


@pytest.fixture
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


def pieces_of(tokenizer, ids, one_by_one=True):
    pieces = queue.Queue()
    streamer = TextPieces(tokenizer, pieces)
    streamer.put(torch.tensor([[1, 5, 6]]))
    for part in ids if one_by_one else [ids]:
        streamer.put(torch.as_tensor(part).reshape(-1))
    streamer.end()
    return list(pieces.queue)


@pytest.mark.parametrize("text", ["the red circle", "two 😀 é 赤", "😀😀", "a\nb", "x" * 30])
def test_pieces_join_to_the_text_and_hold_whole_characters(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(ids) >= len(pieces) > 0


def test_special_tokens_and_the_prompt_are_left_out(tokenizer):
    ids = tokenizer("red", add_special_tokens=False)["input_ids"]
    assert "".join(pieces_of(tokenizer, [*ids, tokenizer.eos_token_id])) == "red"


def test_an_answer_cut_within_a_character_shows_what_came(tokenizer):
    ids = tokenizer("no 😀", add_special_tokens=False)["input_ids"]
    assert "".join(pieces_of(tokenizer, ids[:-1])).startswith("no ")


def incomplete_bytes(tokenizer, before, after):
    """Ids of two texts with half a character between them."""
    half = tokenizer.convert_tokens_to_ids(["<0xF0>", "<0x9F>"])
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)]
    return [*texts[0], *half, *texts[1]]


@pytest.mark.parametrize(
    ("before", "after"), [("😀", "the red circle"), ("a 😀😀", "x\ny"), ("red", "is 😀"), ("😀", "")]
)
def test_text_goes_on_after_bytes_that_are_no_character(tokenizer, before, after):
    bundled = load_tokenizer(str(Path(__file__).parents[2] / "checkpoints/tiny/language"))
    for each in (tokenizer, bundled):
        text = "".join(pieces_of(each, incomplete_bytes(each, before, after)))
        said = text.replace("\N{REPLACEMENT CHARACTER}", "")
        assert said.startswith(before) and said.removeprefix(before).strip() == after
        assert text.count("\N{REPLACEMENT CHARACTER}") == 2


def endless(streamer, stopping_criteria):
    """As transformers' generate: the prompt, then a token at a time until a criterion says stop."""
    streamer.put(torch.tensor([[1]]))
    ids = torch.tensor([[1]])
    while not stopping_criteria(ids, None).all():
        streamer.put(torch.tensor([100]))
        time.sleep(0.002)
    streamer.end()


def test_the_thread_ends_when_the_consumer_stops(tokenizer):
    before = threading.active_count()
    stream = stream_text(endless, tokenizer)
    for _, _ in zip(range(3), stream, strict=False):
        pass
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before


def test_an_error_of_the_model_reaches_the_consumer(tokenizer):
    def broken(streamer, stopping_criteria):
        endless_once = torch.tensor([[1]])
        streamer.put(endless_once)
        streamer.put(torch.tensor([100]))
        raise RuntimeError("out of memory")

    stream = stream_text(broken, tokenizer)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream)
    assert threading.active_count() == before


def test_gradients_are_off_in_the_thread(tokenizer):
    seen = []

    def look(streamer, stopping_criteria):
        seen.append(torch.is_inference_mode_enabled())

    assert list(stream_text(look, tokenizer)) == [] and seen == [True]
