"""Text that looks like special tokens, and stays text."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mmgpt.datasets.prompts import EOS, Segment
from mmgpt.datasets.transforms import TokenizeSegments
from mmgpt.models.tokenizer import load_tokenizer
from tests.helpers.tokenizer_folders import NAMED, byte_level, plain, save

MARKED = ["<think>", "[TOOL]", "<｜User｜>"]


def test_marks_that_a_file_declares_as_ordinary_stay_text(tmp_path):
    raw = byte_level()
    raw.add_tokens([AddedToken(token, special=False) for token in (*MARKED, "\n\n## Answer:\n")])
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", tokenizer_config=NAMED))
    think, line = tokenizer.convert_tokens_to_ids(["<think>", "\n\n## Answer:\n"])
    ids = plain(tokenizer, f"a {' '.join(MARKED)}\n\n## Answer:\nb")
    assert not set(tokenizer.convert_tokens_to_ids(MARKED)) & set(ids)
    assert line in ids
    assert tokenizer.decode(ids) == f"a {' '.join(MARKED)}\n\n## Answer:\nb"
    assert tokenizer.decode([think, *plain(tokenizer, "a")], skip_special_tokens=True) == "<think>a"


def test_html_and_numbers_in_brackets_are_ordinary_text(tmp_path):
    """Gemma's vocabulary has them as added tokens, and was trained on texts with them."""
    raw, tokens = byte_level(), ["<table>", "</td>", "<h1>", "<br/>", "[1]"]
    raw.add_tokens([AddedToken(token, special=False) for token in tokens])
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", tokenizer_config=NAMED))
    assert set(tokenizer.convert_tokens_to_ids(tokens)) <= set(plain(tokenizer, f"a {' '.join(tokens)} b"))


def test_special_tokens_that_merges_produce_stay_text(tmp_path):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("<", "s"), ("<s", ">"), ("<", "|"), ("<|", "x"), ("<|x", "|"), ("<|x|", ">")]
    vocabulary = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges), "</s>"])}
    raw = Tokenizer(models.BPE(vocabulary, merges))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(False, use_regex=False), decoders.ByteLevel()
    config = dict(bos_token="<s>", eos_token="</s>")
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", tokenizer_config=config))
    ids = plain(tokenizer, "a<s>b<|x|>")
    assert tokenizer.convert_ids_to_tokens(ids) == list("a<s>b<|x|>")


@pytest.mark.parametrize("tokenization", ["segments", "stripped"])
def test_marks_in_text_have_the_labels_of_their_text(tmp_path, tokenization):
    raw = byte_level()
    raw.add_tokens([AddedToken(token, special=False) for token in MARKED])
    tokenizer = load_tokenizer(save(raw, tmp_path / "base", tokenizer_config=dict(NAMED, bos_token=None)))
    segments = [Segment("a <think>"), Segment("[TOOL]<think>", True), Segment(EOS, True, True)]
    ids, labels = TokenizeSegments(tokenizer, 99, tokenization).encode(segments)
    assert tokenizer.decode([label for label in labels if label >= 0]) == "[TOOL]<think></s>"
    assert tokenizer.decode(ids) == "a <think>[TOOL]<think></s>"
