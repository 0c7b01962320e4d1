import pytest
import torch

from mmgpt.engine import global_batch
from mmgpt.engine.global_batch import set_totals


def batch(source, learned):
    labels = torch.full((1, 9), -100)
    labels[0, 1 : 1 + learned] = 5
    return {"labels": labels, "samples": None, "sources": [source]}


def totals(*batches):
    set_totals(batches)
    assert all(one["totals"] is batches[0]["totals"] for one in batches)
    return {name: value.item() for name, value in batches[0]["totals"].items()}


def test_one_batch_has_its_own_number_of_tokens():
    assert totals(batch("visual", 3)) == {"visual": 3}


def test_a_step_of_several_batches_has_their_mean():
    assert totals(batch("visual", 3), batch("language", 4), batch("visual", 2)) == {
        "visual": pytest.approx(5 / 3),
        "language": pytest.approx(4 / 3),
    }


def test_what_others_learn_counts(monkeypatch):
    """Of two processes the other has 7 visual and 2 language tokens."""
    monkeypatch.setattr(global_batch, "all_reduce", lambda sums: sums.add_(torch.tensor([7, 2])))
    monkeypatch.setattr(global_batch, "get_world_size", lambda: 2)
    assert totals(batch("visual", 3)) == {"visual": 5, "language": 1}


def test_other_data_stays_as_it_is():
    other = {"x": torch.zeros(1)}
    set_totals([other])
    assert other.keys() == {"x"}


def test_the_log_has_the_mean_of_a_step_for_each_of_its_batches(make_runner):
    """Steps of 4 and 2 batches."""
    runner, seen = make_runner(accumulative_counts=4), []
    step = runner.model.train_step
    runner.model.train_step = lambda *a, **k: (seen.append(step(*a, **k)), seen[-1])[1]
    runner.train()
    losses = torch.stack([outputs["loss"].detach() for outputs in seen])
    expected = torch.cat([part.mean().expand(len(part)) for part in losses.split([4, 2, 4, 2])])
    logged = runner.message_hub.get_scalar("train/loss").data[0]
    torch.testing.assert_close(torch.tensor(logged, dtype=torch.float32), expected)
