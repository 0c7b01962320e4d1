"""Perplexity of planted scores, and of a model's answers against its training loss."""

import math

import pytest
import torch

from mmgpt.datasets import collate_conversations
from mmgpt.datasets.transforms import AddCandidates, FormatPrompt, PackInputs, TokenizeSegments
from mmgpt.evaluation import Perplexity
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.registry import MODELS

META = dict(id="1", source="language", file="f", record=1, images=[])


def test_tokens_weigh_the_same():
    metric = Perplexity()
    rows = [("a", -2.0, 4), ("a", -4.0, 2), ("b", -1.0, 10)]
    samples = [dict(META, dataset=name, scores=[score], candidate_tokens=[count]) for name, score, count in rows]
    metric.process(None, samples)
    scores = metric.compute_metrics(metric.results)
    assert scores["loss"] == pytest.approx(7 / 16)
    assert scores["perplexity"] == pytest.approx(math.exp(7 / 16))
    assert scores["a/loss"] == pytest.approx(1.0)
    assert scores["b/tokens"] == 10
    assert scores["tokens"] == 16


def test_rows_without_their_score_are_named():
    with pytest.raises(ValueError, match="sample '1' of dataset 'a' does not have one score"):
        Perplexity().process(None, [dict(META, dataset="a", scores=[1.0, 2.0], candidate_tokens=[1, 1])])
    with pytest.raises(ValueError, match="no answer to score"):
        Perplexity().compute_metrics([])


def test_it_is_the_loss_of_training(tiny_flamingo_config, tiny_llama):
    torch.manual_seed(0)
    model, tokenizer = MODELS.build(tiny_flamingo_config).eval(), load_tokenizer(tiny_llama)
    tokenize = dict(type="TokenizeSegments", tokenizer=tokenizer, max_length=200)
    texts = {"what colour": "red circle", "what shape": "a square", "is": "no"}

    def sample(question, answer, asked):
        turns = [{"question": question, "answer": answer}]
        results = FormatPrompt("short", open_last=asked)(dict(META, id=question, dataset="d", turns=turns))
        results = TokenizeSegments(tokenizer, 200)(results)
        return PackInputs()(AddCandidates(tokenize, answers="answer")(results) if asked else results)

    batch = collate_conversations([sample(*pair, True) for pair in texts.items()], padding_side="left")
    metric = Perplexity()
    metric.process(None, model(**batch, mode="predict"))
    trained = collate_conversations([sample(*pair, False) for pair in texts.items()])
    (loss,) = model(**trained, mode="loss").values()
    scores = metric.compute_metrics(metric.results)
    assert scores["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert scores["tokens"] == int((trained["labels"] != -100).sum())
