"""Streaming detokenizer: whole characters only, up to a stop sequence, and never taken back."""

from pathlib import Path

import pytest

from mmgpt.inference.detokenizer import AnswerDetokenizer, IncrementalDetokenizer
from mmgpt.models.tokenizer import load_tokenizer


@pytest.fixture
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def pieces_of(text, ids):
    """The pieces that a detokenizer gives for some ids, without the empty ones."""
    pieces = [text.add(token) for token in ids]
    return [piece for piece in [*pieces, text.flush()] if piece]


@pytest.mark.parametrize(
    "text", ["the red circle", "two 😀 é 赤", "😀😀", "a\nb", "x" * 30, "the red 😀 circle? " * 40, "漢字" * 60]
)
def test_pieces_join_to_the_text_and_hold_whole_characters(tokenizer, text):
    ids = ids_of(tokenizer, text)
    pieces = pieces_of(IncrementalDetokenizer(tokenizer), ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(ids) >= len(pieces) > 0
    assert "".join(pieces_of(AnswerDetokenizer(tokenizer), ids)) == text.strip()


def test_special_tokens_are_left_out(tokenizer):
    assert pieces_of(IncrementalDetokenizer(tokenizer), [*ids_of(tokenizer, "red"), tokenizer.eos_token_id]) == ["red"]


def test_an_answer_cut_within_a_character_shows_what_came(tokenizer):
    assert "".join(pieces_of(AnswerDetokenizer(tokenizer), ids_of(tokenizer, "no 😀")[:-1])).startswith("no ")


def incomplete_bytes(tokenizer, before, after):
    """Ids of two texts with half a character between them."""
    half = tokenizer.convert_tokens_to_ids(["<0xF0>", "<0x9F>"])
    return [*ids_of(tokenizer, before), *half, *ids_of(tokenizer, after)]


@pytest.mark.parametrize(
    ("before", "after"), [("😀", "the red circle"), ("a 😀😀", "x\ny"), ("red", "is 😀"), ("😀", "")]
)
def test_text_goes_on_after_bytes_that_are_no_character(tokenizer, before, after):
    bundled = load_tokenizer(str(Path(__file__).parents[2] / "checkpoints/tiny/language"))
    for each in (tokenizer, bundled):
        pieces = pieces_of(IncrementalDetokenizer(each), incomplete_bytes(each, before, after))
        text, end = "".join(pieces), after.split()[-1] if after else before + "\N{REPLACEMENT CHARACTER}" * 2
        assert text.startswith(before)
        assert text.endswith(end)


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("the red circle", ["circle"], "the red"),
        ("the red circle", ["red", "the"], ""),
        ("the red circle", ["d c"], "the re"),
        ("the red circle", ["redder", "circles"], "the red circle"),
        ("one\n\ntwo", ["\n\n"], "one"),
        ("is it 😀 or 赤?", ["赤"], "is it 😀 or"),
        ("aab", ["ab"], "a"),
        (" two ", [], "two"),
    ],
)
def test_a_stop_sequence_ends_the_text_and_is_not_shown(tokenizer, text, stops, expected):
    answer = AnswerDetokenizer(tokenizer, stops)
    assert "".join(pieces_of(answer, ids_of(tokenizer, text))) == expected
    assert answer.stopped == any(stop in text for stop in stops)


def test_only_what_may_become_a_stop_sequence_is_held_back(tokenizer):
    ids = ids_of(tokenizer, "a#b##c")
    answer = AnswerDetokenizer(tokenizer, ["##c"])
    shown = []
    for token in ids:
        shown.append(answer.add(token))
    said = "".join(shown)
    assert said == "a#b"
    assert shown[-1] == ""
    assert answer.stopped


def test_white_space_waits_for_what_follows(tokenizer):
    answer = AnswerDetokenizer(tokenizer)
    pieces = [answer.add(token) for token in ids_of(tokenizer, "one \n")]
    assert "".join(pieces) == "one"
    assert answer.flush() == ""
    pieces = [answer.add(token) for token in ids_of(tokenizer, "two")]
    assert "".join(pieces).endswith("two")
