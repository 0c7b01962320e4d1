import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mmgpt.datasets.inspection.token_spans import TokenSpan, to_token_spans
from mmgpt.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def shown(tokenizer, ids, labels=None):
    return to_token_spans(tokenizer, ids, [-100] * len(ids) if labels is None else labels)


@pytest.mark.parametrize("text", ["what colour is a red circle?", "a\n\n### b:  c", "😀 é赤 \u202e", "<image></s><s>"])
def test_texts_of_pieces_join_to_the_text(tokenizer, text):
    spans = shown(tokenizer, plain(tokenizer, text))
    # Llama's tokenizer puts a space before a text.
    assert "".join(span.text for span in spans) == " " + text
    assert {span.kind for span in spans} == {"text"}
    assert [i for span in spans for i in span.ids] == plain(tokenizer, text)


def test_token_includes_its_space_and_character_is_one_piece(tokenizer):
    spans = shown(tokenizer, plain(tokenizer, "a red 😀x"))
    assert [span.text for span in spans] == [" a", " red", " ", "😀", "x"]
    assert [len(span.ids) for span in spans] == [1, 1, 1, 4, 1]


def test_special_tokens_have_their_names(tokenizer):
    image, end = tokenizer.convert_tokens_to_ids("<image>"), tokenizer.eos_token_id
    red = plain(tokenizer, "red")
    spans = shown(tokenizer, [tokenizer.bos_token_id, image, *red, end], [-100, -100, *red, end])
    assert spans == [
        TokenSpan("<s>", (1,), False, "special"),
        TokenSpan("<image>", (image,), False, "image"),
        TokenSpan(" red", tuple(red), True, "text"),
        TokenSpan("</s>", (end,), True, "special"),
    ]


def test_bytes_that_are_not_a_character_have_the_name_of_the_token(tokenizer):
    first, *_ = tokenizer.convert_tokens_to_ids(["<0xF0>", "<0x9F>"])
    red = plain(tokenizer, "red")
    for ids in ([first, *red], [first], [first, tokenizer.eos_token_id], [first, first, *red]):
        spans = shown(tokenizer, ids)
        assert spans[0] == TokenSpan("<0xF0>", (first,), False, "bytes")
        assert [i for span in spans for i in span.ids] == ids
    assert [span.kind for span in spans] == ["bytes", "bytes", "text"]


def test_byte_level_tokenizer_gives_whole_characters():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate([*letters, "<e>", "Ġr"])}, [("Ġ", "r")]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<e>")
    spans = shown(tokenizer, plain(tokenizer, "é r\n"))
    assert [(span.text, len(span.ids)) for span in spans] == [("é", 2), (" r", 1), ("\n", 1)]
