import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from mmgpt.datasets.prompts import EOS, IMAGE, Segment
from mmgpt.datasets.transforms import FormatPrompt, PackInputs, SeparateTurns, TokenizeSegments
from mmgpt.datasets.transforms.tokens import LONG_TEXT, TOKENIZATIONS, beginning
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.utils.errors import SampleError

PLACE, END = Segment(IMAGE, special=True), Segment(EOS, True, True)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


def tokens(tokenizer, turns, images=0, max_length=200, template="short", open_last=False, **options):
    results = {
        "id": "x", "dataset": "d", "source": "visual", "file": "f.json", "record": 1,
        "images": ["a.png"] * images, "turns": turns, "rng": np.random.default_rng(0),
    }  # fmt: skip
    results = FormatPrompt(template, open_last)(results)
    return TokenizeSegments(tokenizer, max_length, **options)(results), results


def stripped(tokenizer, *segments):
    """Ids without the start, and the label ids."""
    ids, labels = TokenizeSegments(tokenizer, 99, "stripped").encode(segments)
    assert ids[0] == tokenizer.bos_token_id
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    return ids[1:], [label for label in labels if label != -100]


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def test_only_answers_and_their_ends_have_labels(tokenizer):
    turns = [{"question": "what colour", "answer": "red"}, {"question": "what shape", "answer": "a circle"}]
    out, _ = tokens(tokenizer, turns, images=1)
    has_label = out["labels"] != -100
    assert out["input_ids"].dtype == out["labels"].dtype == torch.int64
    assert torch.equal(out["labels"][has_label], out["input_ids"][has_label])
    assert tokenizer.decode(out["input_ids"][has_label]).split() == ["red</s>", "a", "circle</s>"]
    assert out["input_ids"][0] == tokenizer.bos_token_id
    assert out["image_tokens"] == 1
    assert (out["input_ids"] == tokenizer.bos_token_id).sum() == 1


@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
def test_a_conversation_is_tokenized_alike_in_training_and_chat(tokenizer, tokenization):
    turns = [{"question": "what colour", "answer": "red"}, {"question": "what shape", "answer": "a circle"}]
    whole = tokens(tokenizer, turns, images=1, tokenization=tokenization)[0]["input_ids"]
    for count in (1, 2):
        asked = turns[: count - 1] + [{"question": turns[count - 1]["question"]}]
        opened, _ = tokens(tokenizer, asked, images=1, open_last=True, tokenization=tokenization)
        opened = opened["input_ids"]
        assert torch.equal(opened, whole[: len(opened)])
    assert len(opened) < len(whole)


@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
def test_special_tokens_typed_by_a_user_stay_text(tokenizer, tokenization):
    typed = "<image> </s> <s> <|endofchunk|> <PAD> <unk>"
    out, _ = tokens(tokenizer, [{"question": typed, "context": typed, "answer": typed}], tokenization=tokenization)
    ids = out["input_ids"].tolist()
    assert ids.count(tokenizer.eos_token_id) == ids.count(tokenizer.bos_token_id) == 1
    assert out["image_tokens"] == 0
    special = set(tokenizer.all_special_ids) - {tokenizer.eos_token_id, tokenizer.bos_token_id}
    assert not special & set(ids)
    assert typed in tokenizer.decode(out["labels"][out["labels"] != -100])


def test_text_survives_encoding_and_decoding(tokenizer):
    text = "Ünïcödé 你好 😀\n\n\ttab  two  spaces </s>"
    ids, _ = TokenizeSegments(tokenizer, 99).encode([Segment(text)])
    assert tokenizer.decode(ids[1:]) == text


def test_stripped_text_touches_its_images(tokenizer):
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    ids, _ = stripped(tokenizer, Segment(" red \n"), PLACE, Segment(" \n\n"), PLACE, PLACE, Segment("\tblue "))
    assert ids == [*plain(tokenizer, " red"), image, image, image, *plain(tokenizer, "blue ")]


def test_whitespace_is_stripped_across_segments(tokenizer):
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    ids, label_ids = stripped(tokenizer, PLACE, Segment("\n"), Segment(" red\n", True), Segment(" "), PLACE)
    assert ids == [image, *plain(tokenizer, "red"), image]
    assert label_ids == plain(tokenizer, "red")


def test_stripped_prompt_and_answer_are_encoded_as_one_text(tokenizer):
    ids, label_ids = stripped(tokenizer, Segment("\nwhat\n"), Segment("red\n", True), END, Segment("\nno"))
    eos = [tokenizer.eos_token_id]
    assert ids == plain(tokenizer, "\nwhat\nred\n") + eos + plain(tokenizer, "\nno")
    assert plain(tokenizer, "red\n") != label_ids[:-1] == tokenizer.convert_tokens_to_ids(["r", "e", "d", "\n"])


def test_a_token_across_two_segments_belongs_to_the_one_where_it_ends(tokenizer):
    _, label_ids = stripped(tokenizer, Segment("what "), Segment("red", True), Segment(" no"))
    assert label_ids == plain(tokenizer, "red")
    assert len(label_ids) == 1


def test_all_tokens_of_an_answer_that_comes_first_have_labels(tokenizer):
    _, label_ids = stripped(tokenizer, Segment("x", True), Segment(" no"))
    assert label_ids == plain(tokenizer, "x")
    assert len(label_ids) == 2


def test_leading_space_follows_the_prefix_space(tokenizer, monkeypatch):
    """Also with a tokenizer that puts no space in front of one, as Llama's of transformers 5 does."""
    ids, label_ids = stripped(tokenizer, Segment(" red"), Segment(" red", True))
    assert tokenizer.decode(ids) == " red red"
    assert label_ids == plain(tokenizer, "red")
    monkeypatch.setattr(tokenizer.backend_tokenizer, "normalizer", None)
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    monkeypatch.setattr(tokenizer.backend_tokenizer, "pre_tokenizer", metaspace)
    assert plain(tokenizer, " red") == plain(tokenizer, "red")
    assert stripped(tokenizer, Segment(" red"), Segment(" red", True)) == (ids, label_ids)


def test_unknown_tokenization(tokenizer):
    with pytest.raises(ValueError, match="unknown tokenization 'strip': choose among segments, stripped"):
        TokenizeSegments(tokenizer, 9, "strip")


@pytest.mark.parametrize("max_length", [-1, 0, "long", 1.5, True])
def test_a_length_limit_that_is_no_number_of_tokens(tokenizer, max_length):
    with pytest.raises(ValueError, match=r"max_length=.* \(chat: chat_max_length\): choose 1 or more tokens, or None"):
        TokenizeSegments(tokenizer, max_length)


def test_a_start_of_sequence_that_is_neither_there_nor_left_out(tokenizer):
    with pytest.raises(ValueError, match="add_bos_token='yes': choose one of True, False and None"):
        TokenizeSegments(tokenizer, 9, add_bos_token="yes")


def test_truncation_is_reported(tokenizer):
    turn = {"question": "what", "answer": "red " * 30}
    whole, _ = tokens(tokenizer, [turn])
    limit = len(whole["input_ids"]) - 7
    out, results = tokens(tokenizer, [turn], max_length=limit)
    assert len(out["input_ids"]) == len(out["labels"]) == limit
    assert results["cut"] == (limit + 7, limit, 7)
    assert "cut" not in whole


def test_result_without_label_tokens_is_none(tokenizer):
    turn = {"question": "what " * 50, "answer": "red"}
    out, results = tokens(tokenizer, [turn], max_length=20)
    assert out is None
    assert results["cut"][1] == 20
    assert results["cut"][2] > 0
    assert tokens(tokenizer, [{"question": "what", "answer": ""}])[0] is None


def test_open_prompt_above_the_limit_is_an_error(tokenizer):
    with pytest.raises(ValueError, match=r"file 'f.json', record 1, id 'x': a prompt of \d+ tokens, the limit is 20"):
        tokens(tokenizer, [{"question": "what " * 50}], max_length=20, open_last=True)


def test_other_number_of_images_than_contents_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="file 'f.json', record 1, id 'x': 2 images, but 1 image contents"):
        tokens(tokenizer, [{"question": [{"type": "image"}]}], images=2)


def test_tokenizer_by_folder_is_loaded_once(tiny_llama):
    assert TokenizeSegments(tiny_llama, 9).tokenizer is TokenizeSegments(tiny_llama, 9).tokenizer


def test_a_tokenizer_without_a_start_token(tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "bos_token_id", None, raising=False)
    ids, labels = TokenizeSegments(tokenizer, 9).encode([Segment("red", True), Segment(EOS, True, True)])
    assert ids == labels


def test_pack_leaves_out_images_whose_token_is_cut_off(tokenizer):
    turns = [
        {"question": [{"type": "image"}], "answer": "red"},
        {"question": [{"type": "image"}], "answer": "blue"},
    ]
    whole = tokens(tokenizer, turns, images=2)[0]
    out, _ = tokens(tokenizer, turns, images=2, max_length=len(whole["input_ids"]) // 2)
    out["pixels"] = torch.zeros(2, 3, 4, 4)
    packed = PackInputs()(out)
    assert packed["pixels"].shape[0] == 1
    assert (packed["input_ids"] == tokenizer.convert_tokens_to_ids("<image>")).sum() == 1


def test_pack_without_loaded_images_is_an_error(tokenizer):
    out, _ = tokens(tokenizer, [{"question": "what", "answer": "red"}], images=1)
    with pytest.raises(ValueError, match="record 1, id 'x': 1 images, but no LoadImages"):
        PackInputs()(out)


def test_meta_of_the_last_turn(tokenizer):
    turns = [{"question": "a", "answer": "b"}, {"question": "what", "answer": "red", "answers": ["red", "blue"]}]
    meta = PackInputs()(tokens(tokenizer, turns)[0])["meta"]
    assert meta["question"] == "what"
    assert meta["answer"] == "red"
    assert meta["answers"] == ["red", "blue"]
    assert meta["choices"] == []
    assert meta["prompt"].endswith("what\n\n### Response:\n")
    assert meta["dataset"] == "d"
    assert meta["file"] == "f.json"
    assert meta["record"] == 1


@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
@pytest.mark.parametrize("blank", [" ", ""])
@pytest.mark.parametrize("place", ["answer", "question"])
def test_only_the_beginning_of_a_very_long_text_is_encoded(tokenizer, monkeypatch, tokenization, blank, place):
    long = blank.join(["red", "circle", "what"] * (LONG_TEXT // 8))
    turns = [{"question": "what colour", "answer": "red"}, {"question": "what shape", "answer": "a circle"}]
    turns[1][place] = long
    cut, info = tokens(tokenizer, turns, images=1, max_length=40, tokenization=tokenization)
    monkeypatch.setattr("mmgpt.datasets.transforms.tokens.LONG_TEXT", 10**9)
    whole, all_of = tokens(tokenizer, turns, images=1, max_length=40, tokenization=tokenization)
    assert torch.equal(cut["input_ids"], whole["input_ids"])
    assert torch.equal(cut["labels"], whole["labels"])
    assert 40 < info["cut"][0] < all_of["cut"][0]
    assert info["cut"][1] == 40
    assert 0 < info["cut"][2] <= all_of["cut"][2], "the lost answer is told"


def test_a_long_text_of_few_tokens_is_encoded_further(tokenizer, monkeypatch):
    monkeypatch.setattr("mmgpt.datasets.transforms.tokens.LONG_TEXT", 30)
    monkeypatch.setattr("mmgpt.datasets.transforms.tokens.CHARACTERS", 1)
    turns = [{"question": "what " * 30, "answer": "red circle"}]
    out, info = tokens(tokenizer, turns, max_length=99)
    assert "cut" not in info
    assert tokenizer.decode(out["input_ids"]).rstrip("</s>").rstrip().endswith("red circle")


def test_the_beginning_of_segments():
    segments = [Segment("abc def", True), PLACE, Segment("gh ij", False)]
    assert beginning(segments, 19) is segments
    assert beginning(segments, 18) == [*segments[:2], Segment("gh", False)]
    assert beginning(segments, 5) == [Segment("abc", True)]
    assert beginning(segments, 2) == [Segment("ab", True)]


def separate(tokenizer, turns, images=1, max_length=200, **options):
    results = dict(images=["a.png"] * images, turns=turns, id="x", dataset="d", file="f.json", record=1)
    results = FormatPrompt("short", **options)(SeparateTurns()(results))
    return TokenizeSegments(tokenizer, max_length)(results)


def test_separate_turns_are_the_single_turns_behind_what_these_share(tokenizer):
    turns = [
        {"question": "what colour", "answer": "red"},
        {"question": "what shape", "answer": "a circle"},
        {"question": "what shape", "answer": "a round one"},
    ]
    out = separate(tokenizer, turns)
    shared = out["turn_ids"] == 0
    assert tokenizer.decode(out["input_ids"][shared]).split()[-3:] == ["###", "Instruction:", "what"]
    assert out["image_tokens"] == 1
    for number, turn in enumerate(turns, 1):
        single, _ = tokens(tokenizer, [turn], images=1)
        own = shared | (out["turn_ids"] == number)
        assert torch.equal(out["input_ids"][own], single["input_ids"])
        assert torch.equal(out["labels"][own], single["labels"])
        assert out["labels"][out["turn_ids"] == number][0] == -100  # the token before it is of another turn


def test_the_length_limit_is_that_of_each_separate_turn(tokenizer):
    turns = [{"question": "what colour", "answer": "red"}, {"question": "what " * 30, "answer": "a circle"}]
    single, _ = tokens(tokenizer, turns[:1], images=1)
    out = separate(tokenizer, turns, max_length=len(single["input_ids"]))
    assert torch.equal(out["input_ids"], single["input_ids"])
    assert out["cut"][2] > 0
    assert separate(tokenizer, turns, max_length=5) is None


def test_separate_turns_that_do_not_share_their_images_are_refused(tokenizer):
    image, text = {"type": "image"}, {"type": "text", "text": "is it "}
    turns = [{"question": [text, image], "answer": "red"}, {"question": "what", "answer": "a circle"}]
    with pytest.raises(SampleError, match="an image stands behind words in which they differ"):
        separate(tokenizer, turns)
    with pytest.raises(SampleError, match="separate turns .* are for training"):
        separate(tokenizer, turns[1:], open_last=True)
