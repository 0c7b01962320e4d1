"""Candidates scored together against each of them scored alone."""

import pytest
import torch

from mmgpt.models import ranking
from mmgpt.models.ranking import Candidate, Prompts, rank
from tests.models.test_gated_lm import FAMILIES, VOCABULARY, batch, gated


def make_candidates(rows):
    """0 to 4 candidates a row, of 1 to 4 tokens, some with a token that does not count."""
    torch.manual_seed(4)
    made = []
    for row in range(rows):
        some = [torch.randint(6, VOCABULARY, (1 + (row + i) % 4,)) for i in range((4, 0, 3)[row % 3])]
        made.append([Candidate(ids, ids.clone(), 1 / len(ids)) for ids in some])
    made[0][1].labels[0] = -100
    return made


def alone(model, prompts, row, candidate):
    """The score by one pass over prompt and candidate, without a cache or padding."""
    kept = prompts.mask[row].bool()
    ids = torch.cat((prompts.ids[row][kept], candidate.ids))[None]
    features = None if prompts.features is None else prompts.features[row : row + 1]
    media = model.media(ids, features, prompts.counts[row : row + 1])
    likelihoods = model(ids, media=media, use_cache=False).logits[0].log_softmax(-1)
    first = int(kept.sum()) - 1
    counted = [likelihoods[first + i, token] for i, token in enumerate(candidate.labels) if token != -100]
    return candidate.weight * float(sum(counted))


@pytest.mark.parametrize("image_attention", ["latest", "next"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_single_passes(family, image_attention, monkeypatch):
    monkeypatch.setattr(ranking, "TOKENS", 30)
    model = gated(family, image_attention)
    ids, attention, features, counts = batch()
    prompts, candidates = Prompts(ids, attention, features, counts), make_candidates(3)
    with torch.no_grad():
        expected = [[alone(model, prompts, row, each) for each in some] for row, some in enumerate(candidates)]
    scores = rank(model, prompts, candidates)
    assert [len(some) for some in scores] == [4, 0, 3]
    for some, wanted in zip(scores, expected, strict=True):
        assert some == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_text_without_images():
    model = gated()
    ids, attention, _, counts = batch()
    prompts, candidates = Prompts(ids, attention, None, counts * 0), make_candidates(3)
    with torch.no_grad():
        expected = [alone(model, prompts, 0, each) for each in candidates[0]]
    assert rank(model, prompts, candidates)[0] == pytest.approx(expected, rel=1e-4)
