import pytest
import torch

from mmgpt.engine import global_batch
from mmgpt.engine.global_batch import set_totals


def batch(source, tokens):
    labels = torch.full((1, 9), -100)
    labels[0, 1 : 1 + tokens] = 5
    return {"labels": labels, "sample_ids": None, "sources": [source]}


def totals(*batches):
    set_totals(batches)
    assert all(batch["totals"] is batches[0]["totals"] for batch in batches)
    return {name: value.item() for name, value in batches[0]["totals"].items()}


def test_total_of_one_batch_is_its_number_of_label_tokens():
    assert totals(batch("visual", 3)) == {"visual": 3}


def test_total_of_a_step_of_several_batches_is_their_mean():
    assert totals(batch("visual", 3), batch("language", 4), batch("visual", 2)) == {
        "visual": pytest.approx(5 / 3),
        "language": pytest.approx(4 / 3),
    }


def test_label_tokens_of_other_processes_count(monkeypatch):
    """The other one of two processes has 7 visual and 2 language tokens."""
    monkeypatch.setattr(global_batch, "all_reduce", lambda sums: sums.add_(torch.tensor([7, 2])))
    monkeypatch.setattr(global_batch, "get_world_size", lambda: 2)
    assert totals(batch("visual", 3)) == {"visual": 5, "language": 1}


def test_batches_of_other_data_stay_as_they_are():
    other = {"x": torch.zeros(1)}
    set_totals([other])
    assert other.keys() == {"x"}
