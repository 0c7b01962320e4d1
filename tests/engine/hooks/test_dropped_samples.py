"""What training lost is logged once an epoch, with what worker processes counted."""

from types import SimpleNamespace

from mmgpt.datasets import JointDataset
from mmgpt.datasets.dropped import DroppedSamples
from mmgpt.engine.hooks import dropped_samples as module
from mmgpt.registry import HOOKS


def runner_of(dataset):
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset))


def test_what_each_part_lost(monkeypatch):
    said = []
    monkeypatch.setattr(module, "print_log", lambda text, *_: said.append(text))
    first, second, third = (SimpleNamespace(dropped=DroppedSamples(name)) for name in ("first", "second", "third"))
    first.dropped.counts[0, 1], first.dropped.counts[3, 1], first.dropped.counts[2, 3] = 1, 2, 5
    second.dropped.counts[0, 0] = 7
    third.dropped.add("skipped", "a sample")
    hook = HOOKS.build(dict(type="DroppedSamplesHook"))
    joint = JointDataset.__new__(JointDataset)
    joint.visual, joint.language = [first, second], [third]
    hook.after_train_epoch(runner_of(joint))
    assert said == [
        "dataset first: 3 samples that could not be read, 5 samples whose answers were truncated since the start "
        "of this run",
        "dataset third: 1 samples with nothing to learn since the start of this run",
    ]
    hook.after_train_epoch(runner_of(first))
    hook.after_train_epoch(runner_of([1, 2]))
    assert len(said) == 3
