"""Lengths, what samples hold, and the batches that are made of them."""

import pytest
import torch

from benchmarks.samples import LENGTHS, DrawnSamples, batches, words_of
from mmgpt.datasets.collate import count_label_tokens
from mmgpt.datasets.instruction import SOURCES

IGNORE_INDEX = -100


@pytest.fixture
def words(small_model, small_cfg):
    return words_of(small_model, small_cfg.prepare_images.size)


@pytest.fixture
def drawn(words):
    return [DrawnSamples(source, 8, words, shrink=0.25) for source in SOURCES]


@pytest.mark.parametrize("source", SOURCES)
def test_lengths_have_their_median_and_bounds(source):
    kind = LENGTHS[source]
    lengths = kind.quantiles(101, 1.0)
    assert lengths[50] == kind.median
    assert lengths[0] == kind.shortest
    assert lengths[-1] == kind.longest
    assert lengths == sorted(lengths)
    assert kind.quantiles(101, 0.5)[50] == kind.median // 2
    # A visual sample of the published mix is half as long as a language one.
    assert LENGTHS["visual"].median < LENGTHS["language"].median


def test_words_exclude_special_tokens(small_model, words):
    special = set(small_model.tokenizer.all_special_ids)
    assert words.image in special
    assert words.side == 32
    assert not special & set(words.ordinary.tolist())


def test_a_visual_sample_has_one_image_before_its_answer(drawn, words):
    visual, language = drawn
    for sample in visual.samples:
        ids, labels = sample["input_ids"], sample["labels"]
        [position] = (ids == words.image).nonzero().flatten().tolist()
        supervised = (labels != IGNORE_INDEX).nonzero().flatten().tolist()
        assert position < supervised[0]
        assert supervised == list(range(supervised[0], len(ids)))
        assert torch.equal(labels[supervised], ids[supervised])
        assert sample["pixels"].shape == (1, 3, 32, 32)
    assert all(sample["pixels"] is None and words.image not in sample["input_ids"] for sample in language.samples)
    share = {part.source: sum(int((s["labels"] != IGNORE_INDEX).sum()) for s in part.samples) for part in drawn}
    assert share["language"] > share["visual"]


def test_the_same_seed_gives_the_same_samples(words, drawn):
    again = DrawnSamples("visual", 8, words, shrink=0.25)
    other = DrawnSamples("visual", 8, words, shrink=0.25, seed=1)

    def texts(part):
        return [sample["input_ids"].tolist() for sample in part.samples]

    assert texts(again) == texts(drawn[0]) != texts(other)
    assert list(map(len, texts(again))) == list(map(len, texts(other)))


def contents(batches_of_epoch):
    """The supervised tokens of each sample, whatever row and batch it is in."""
    supervised_tokens = []
    for batch in batches_of_epoch:
        owners = batch["sample_ids"]
        if owners is None:
            owners = torch.arange(len(batch["labels"]))[:, None].expand_as(batch["labels"])
        for number in range(len(batch["sources"])):
            labels = batch["labels"][owners == number]
            supervised_tokens.append(tuple(labels[labels != IGNORE_INDEX].tolist()))
    return sorted(supervised_tokens)


def test_all_batches_hold_the_same_samples(drawn):
    mixed, grouped = batches(drawn, 4), batches(drawn, 4, grouped=True)
    packed = batches(drawn, 4, row_length=128)
    assert [batch["sources"] for batch in mixed] == [["visual"] * 4 + ["language"] * 4] * 2
    assert contents(mixed) == contents(grouped) == contents(packed)
    assert len(contents(mixed)) == 16
    totals = [
        [sum(count_label_tokens(b)[s] for b in batches_of_epoch) for s in SOURCES]
        for batches_of_epoch in (mixed, grouped, packed)
    ]
    assert totals[0] == totals[1] == totals[2]
    assert all(totals[0])


def test_grouped_and_packed_rows_have_less_padding(drawn):
    places = [
        sum(batch["input_ids"].numel() for batch in batches(drawn, 4, **how))
        for how in ({}, dict(grouped=True), dict(row_length=128))
    ]
    assert places[0] > places[1] > places[2]


def test_batches_of_one_source(drawn):
    [first, second] = batches(drawn[1:], 4)
    assert first["pixels"] is None
    assert set(first["sources"] + second["sources"]) == {"language"}
