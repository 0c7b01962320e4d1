import pytest
import torch

from mmgpt.datasets import collate_conversations
from mmgpt.datasets.transforms import AddCandidates, FormatPrompt, PackInputs, TokenizeSegments
from mmgpt.datasets.transforms.tokens import TOKENIZATIONS
from mmgpt.models.tokenizer import load_tokenizer

CHOICES = ["red", "red circle", "blue"]


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


def offered(tokenizer, turn=None, template="short", max_length=200, tokenization="segments", images=1, **options):
    turn = turn or {"question": "what colour", "answer": "red", "choices": CHOICES}
    turns = turn if isinstance(turn, list) else [turn]
    results = {
        "id": "x", "dataset": "d", "source": "visual", "file": "f.json", "record": 1,
        "images": ["a"] * images, "turns": turns,
    }  # fmt: skip
    tokenize = dict(type="TokenizeSegments", tokenizer=tokenizer, max_length=max_length, tokenization=tokenization)
    results = FormatPrompt(template, open_last=True)(results)
    results = TokenizeSegments(tokenizer, max_length, tokenization)(results)
    return AddCandidates(tokenize, **options)(results)


@pytest.mark.parametrize("tokenization", TOKENIZATIONS)
@pytest.mark.parametrize("template", ["short", "openflamingo_vqa"])
def test_prompt_and_candidate_are_the_tokens_of_training(tokenizer, template, tokenization):
    out = offered(tokenizer, template=template, tokenization=tokenization)
    assert out["choices"] == CHOICES
    assert out["image_tokens"] == 1
    for text, candidate in zip(CHOICES, out["candidates"], strict=True):
        trained = dict(out, turns=[{"question": "what colour", "answer": text}])
        whole = TokenizeSegments(tokenizer, 200, tokenization)(FormatPrompt(template)(trained))
        assert torch.equal(torch.cat((out["input_ids"], candidate["ids"])), whole["input_ids"])
        assert torch.equal(torch.cat((out["labels"], candidate["labels"])), whole["labels"])
        assert candidate["weight"] == 1.0


def test_earlier_answers_are_part_of_the_prompt(tokenizer):
    image = {"type": "image"}
    before = {"question": [image, {"type": "text", "text": "what shape"}], "answer": "a square"}
    asked = {"question": [image, {"type": "text", "text": "what colour"}], "choices": CHOICES}
    out = offered(tokenizer, [before, asked], images=2)
    assert out["image_tokens"] == 2
    assert (out["labels"] == -100).all()
    text = tokenizer.decode(out["input_ids"])
    assert "a square</s>" in text
    assert text.rstrip().endswith("Response:")
    assert [tokenizer.decode(each["labels"]).strip() for each in out["candidates"]] == [
        f"{text}</s>" for text in CHOICES
    ]


def test_answers_of_the_config_and_weights_by_length(tokenizer):
    out = offered(tokenizer, {"question": "is it red"}, answers=["yes", "no no"], per_token=True)
    assert out["choices"] == ["yes", "no no"]
    for candidate in out["candidates"]:
        assert candidate["weight"] == 1 / (candidate["labels"] != -100).sum()


@pytest.mark.parametrize("choices", [[], ["red", ""], ["red", "red"]])
def test_answers_without_a_choice_are_an_error(tokenizer, choices):
    turn = {"question": "what colour", "choices": choices}
    with pytest.raises(ValueError, match="file 'f.json', record 1, id 'x': cannot choose among the answers"):
        offered(tokenizer, turn)


def test_answer_above_the_limit_is_an_error(tokenizer):
    out = offered(tokenizer)
    most = len(out["input_ids"]) + max(len(each["ids"]) for each in out["candidates"]) - 1
    with pytest.raises(ValueError, match="id 'x': .* tokens with the answer 'red circle', the limit is"):
        offered(tokenizer, max_length=most)


def test_candidates_pass_through_collate(tokenizer):
    out = offered(tokenizer)
    packed = PackInputs()(dict(out, pixels=torch.zeros(1, 3, 2, 2)))
    plain = dict(packed, candidates=None)
    batch = collate_conversations([packed, plain], padding_side="left")
    assert batch["candidates"] == [out["candidates"], []]
    assert batch["metas"][0]["choices"] == CHOICES
    assert collate_conversations([plain, plain])["candidates"] is None
