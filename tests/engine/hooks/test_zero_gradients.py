"""Runs that learn nothing, from the first step on, for some steps, or because nothing reaches what is trained."""

import pytest

from mmgpt.engine.hooks.zero_gradients import ZeroGradientsHook
from mmgpt.models.loss import attach_to_graph
from mmgpt.registry import MODELS
from tests.helpers.launching import train_on_two
from tests.helpers.stub_faults import FAULTY
from tests.helpers.stub_training import StubModel

DULL = """
custom_imports['imports'] += ['tests.engine.hooks.test_zero_gradients']
model['type'] = 'DullModel'
{}
"""


@MODELS.register_module(force=True)
class DullModel(StubModel):
    """The stub model; the gradients of its `zero` batches are zero, and no gradient reaches it in `unreached` ones."""

    def __init__(self, zero=(), unreached=(), **options):
        super().__init__(**options)
        self.zero, self.unreached, self.calls = set(zero), set(unreached), 0

    def forward(self, x, y, mode="loss"):
        outputs = super().forward(x, y, mode)
        if mode == "loss":
            self.calls += 1
            if self.calls in self.unreached:
                outputs = attach_to_graph({"loss": outputs["loss"].detach()}, list(self.norm.parameters()))
            elif self.calls in self.zero:
                outputs["loss"] = outputs["loss"] * 0
        return outputs


def dull(clip="dict(max_norm=1.0)", **batches):
    return DULL.format(f"model.update({ ({key: list(value) for key, value in batches.items()}) })") + (
        f"optim_wrapper = dict(clip_grad={clip})\n"
    )


@pytest.mark.parametrize("clip", ["dict(max_norm=1.0)", "None", "dict(_delete_=True, type='value', clip_value=1.0)"])
def test_a_run_with_zero_gradients_is_ended(make_runner, tmp_path, clip):
    runner = make_runner(dull(clip, zero=range(100)), **{"default_hooks.zero_gradients.patience": 4})
    with pytest.raises(ValueError, match=r"first 4 steps of this run all gradients were exactly zero.*target_modules"):
        runner.train()
    assert runner.iter == 3
    assert not list((tmp_path / "run").glob("iter_4.pth"))


def test_patience_counts_steps_not_batches(make_runner):
    runner = make_runner(dull(zero=range(100)), accumulative_counts=3, **{"default_hooks.zero_gradients.patience": 2})
    with pytest.raises(ValueError, match="first 2 steps"):
        runner.train()
    assert runner.iter == 5


def test_a_run_shorter_than_the_patience_is_ended_at_its_last_step(make_runner, tmp_path):
    with pytest.raises(ValueError, match="first 6 steps"):
        make_runner(dull(zero=range(100)), max_epochs=1).train()
    assert not (tmp_path / "run" / "iter_6.pth").exists()


@pytest.mark.parametrize("batches", [dict(zero=[1, 2, 3]), dict(unreached=range(1, 6)), dict(zero=range(2, 100))])
def test_a_run_with_any_nonzero_gradient_continues(make_runner, batches):
    """Three steps of zeros; an epoch of texts alone but for its last batch; one that soon has learned all there is."""
    runner = make_runner(dull(**batches), **{"default_hooks.zero_gradients.patience": 4, "max_epochs": 3})
    runner.train()
    assert runner.iter == 18


def test_a_run_without_gradients_is_ended_after_an_epoch(make_runner):
    runner = make_runner(dull(unreached=range(100)), **{"default_hooks.zero_gradients.patience": 4, "max_epochs": 3})
    with pytest.raises(ValueError, match="first 6 steps of this run no trainable parameter had a gradient"):
        runner.train()
    assert runner.iter == 5


def test_a_resumed_run_is_checked_again(make_runner, tmp_path):
    make_runner(dull(zero=range(7, 100)), max_epochs=1).train()
    cut = dict(resume=True, load_from=str(tmp_path / "run" / "iter_3.pth"), max_epochs=1)
    runner = make_runner(dull(zero=range(100)), **cut, **{"default_hooks.zero_gradients.patience": 3})
    with pytest.raises(ValueError, match="first 3 steps of this run all gradients"):
        runner.train()


@pytest.mark.parametrize("left", [dict(unreached=range(100)), dict(zero=range(100))])
def test_the_last_steps_of_a_resumed_run_do_not_end_it(make_runner, tmp_path, left):
    """Only texts may be left; the last checkpoint of such a run is written."""
    make_runner(dull(), max_epochs=1).train()
    (tmp_path / "run" / "iter_6.pth").unlink()
    cut = str(tmp_path / "run" / "iter_3.pth")
    make_runner(dull(**left), resume=True, load_from=cut, max_epochs=1).train()
    assert (tmp_path / "run" / "iter_6.pth").exists()


def test_infinite_gradients_do_not_count_as_zero(make_runner):
    """They are NonFiniteHook's."""
    poisoned = FAULTY + f"train_dataloader['dataset']['infinite'] = {list(range(12))}\n"
    runner = make_runner(poisoned, **{"default_hooks.zero_gradients.patience": 2, "max_epochs": 1})
    runner.train()
    assert runner.iter == 6


def test_without_the_hook_zero_gradients_end_nothing(make_runner):
    make_runner(dull(zero=range(100)) + "default_hooks['zero_gradients'] = None\n").train()


def test_zero_gradients_end_all_processes(tmp_path):
    done = train_on_two(tmp_path, dull(zero=range(100)) + "default_hooks['zero_gradients'] = dict(patience=2)\n")
    assert done.returncode != 0
    assert done.stderr.count("in the first 2 steps of this run all gradients were exactly zero") >= 2


def test_patience_below_one_is_refused():
    with pytest.raises(ValueError, match="patience=0 must be 1 or more"):
        ZeroGradientsHook(patience=0)
