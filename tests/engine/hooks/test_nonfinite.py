import copy
import re

import pytest
import torch
from mmengine.hooks import Hook

from mmgpt.cli.failures import resource_message
from tests.helpers.launching import logs, train_on_two
from tests.helpers.stub_faults import FAULTY


class States(Hook):
    """Hook that records the trainable weights and the optimizer's state after each batch."""

    priority = "LOWEST"

    def __init__(self):
        self.states = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        weights = [weight.detach().clone() for weight in runner.model.gated.parameters()]
        self.states.append((weights, copy.deepcopy(runner.optim_wrapper.optimizer.state_dict()["state"])))


def flat(state):
    weights, optimizer = state
    values = [value for states in optimizer.values() for value in states.values()]
    return torch.cat([tensor.flatten() for tensor in (*weights, *values)])


def changes(runner):
    """Whether weights or optimizer changed in each batch but the first."""
    hook = States()
    runner.register_hook(hook)
    runner.train()
    states = [flat(state) for state in hook.states]
    return [len(a) != len(b) or not torch.equal(a, b) for a, b in zip(states, states[1:], strict=False)]


def skipped(text):
    return [int(step) for step in re.findall(r"step after (\d+) batches is skipped", text)]


def poisoned(*samples, key="infinite"):
    return FAULTY + f"train_dataloader['dataset']['{key}'] = {list(samples)}\n"


@pytest.mark.parametrize(
    ("key", "clip"),
    [
        ("infinite", "dict(max_norm=1.0)"),
        ("huge", "dict(max_norm=1.0)"),
        ("constant", "dict(max_norm=1.0)"),
        ("huge", "None"),
        ("infinite", "dict(_delete_=True, type='value', clip_value=1.0)"),
    ],
)
def test_a_step_is_skipped_and_its_samples_are_named(make_runner, tmp_path, key, clip):
    """An infinite loss; a finite one with infinite gradients; an infinite one with finite gradients."""
    changed = changes(make_runner(poisoned(5, key=key) + f"optim_wrapper = dict(clip_grad={clip})\n"))
    steps = skipped(logs(tmp_path / "run"))
    assert len(steps) == 2  # one an epoch
    assert [i for i, change in enumerate(changed, start=2) if not change] == [step for step in steps if step > 1]
    what = "the norm of the gradients" if key == "huge" else "loss_stub"
    samples = re.findall(rf"is skipped, 1 in a row: {what} is (?:inf|nan); samples: (.*)", logs(tmp_path / "run"))
    assert len(samples) == 2
    assert all("dataset 'stub', id 5" in line and line.count("id") == 2 for line in samples)


def test_all_batches_of_an_accumulated_step_are_skipped(make_runner, tmp_path):
    changed = changes(make_runner(poisoned(5), accumulative_counts=3))
    steps = skipped(logs(tmp_path / "run"))
    assert len(steps) == 2
    assert all(step % 3 == 0 for step in steps)
    assert [step for step in (3, 6, 9, 12) if changed[step - 2]] == [
        step for step in (3, 6, 9, 12) if step not in steps
    ]


def test_after_too_many_in_a_row_the_run_ends(make_runner, tmp_path):
    runner = make_runner(poisoned(*range(12)), **{"default_hooks.nonfinite.patience": 3})
    with pytest.raises(
        ValueError, match="(?s)4 in a row: loss_stub is inf.*patience=3.*lower the learning rate"
    ) as end:
        runner.train()
    assert runner.iter == 3
    assert skipped(logs(tmp_path / "run")) == [1, 2, 3, 4]
    assert resource_message(end.value) is None


def test_finite_steps_reset_the_count(make_runner, tmp_path):
    make_runner(poisoned(5), **{"default_hooks.nonfinite.patience": 1, "max_epochs": 3}).train()
    assert len(skipped(logs(tmp_path / "run"))) == 3


def test_all_processes_skip_the_step_of_one(tmp_path):
    done = train_on_two(tmp_path, poisoned(5))
    assert done.returncode == 0, done.stderr[-3000:]
    text = logs(tmp_path / "two")
    assert len(skipped(text)) == 2
    assert "id 5" in text
    assert all(line.count("id ") == 2 for line in text.splitlines() if "is skipped" in line)
    state = torch.load(tmp_path / "two" / "latest.pth", weights_only=True)
    assert {int(values["step"]) for values in state["optimizer"]["state"].values()} == {6 - 2}
    assert all(torch.isfinite(state["state_dict"][name]).all() for name in ("gated.weight", "gated.bias"))
