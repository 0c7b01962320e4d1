from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from mmgpt.datasets.shards.streams import StreamedSamples
from mmgpt.engine.loops import ResumableEpochLoop, seed_iteration
from mmgpt.registry import DATASETS
from tests.helpers.stub_training import StubData


class Killed(Exception):
    pass


class Losses(Hook):
    """Notes the loss of every step, and raises after step ``kill``."""

    priority = "LOWEST"

    def __init__(self, kill=None):
        self.values, self.kill = [], kill

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(float(outputs["loss"].detach()))
        if runner.iter + 1 == self.kill:
            raise Killed


def train(runner, kill=None):
    losses = Losses(kill)
    runner.register_hook(losses)
    if kill is None:
        runner.train()
    else:
        with pytest.raises(Killed):
            runner.train()
    return losses.values


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kill", [4, 7, 11])
def test_resumed_run_equals_uninterrupted_one(make_runner, tmp_path, workers, kill):
    """Checkpoints after batch 3 (within an epoch), 6 (its last batch) and 9; dropout and noise in each step."""
    whole = make_runner(workers=workers)
    expected = train(whole)

    killed = train(make_runner(workers=workers, work_dir="killed"), kill=kill)
    done = kill // 3 * 3
    resumed = make_runner(
        workers=workers, work_dir="killed", resume=True, load_from=str(tmp_path / "killed" / "latest.pth")
    )
    assert killed == expected[:kill]
    assert train(resumed) == expected[done:]
    after, before = weights(resumed), weights(whole)
    assert after.keys() == before.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    assert [group["lr"] for group in resumed.optim_wrapper.param_groups] == [
        group["lr"] for group in whole.optim_wrapper.param_groups
    ]


@pytest.mark.parametrize(("kill", "done", "workers"), [(5, 4, 0), (6, 6, 0), (7, 6, 0), (9, 6, 2), (11, 10, 0)])
def test_run_resumed_within_a_step_equals_the_uninterrupted_one(make_runner, tmp_path, kill, done, workers):
    """Twice 6 batches in steps of 4 and 2: what the step under way had accumulated is done again."""
    steps = dict(workers=workers, accumulative_counts=4)
    more = "default_hooks['checkpoint']['interval'] = 1"
    whole = make_runner(more, **steps)
    expected = train(whole)
    assert train(make_runner(more, work_dir="killed", **steps), kill=kill) == expected[:kill]
    resumed = make_runner(
        more, work_dir="killed", resume=True, load_from=str(tmp_path / "killed" / "latest.pth"), **steps
    )
    assert train(resumed) == expected[done:]
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)


def test_validation_does_not_change_training(make_runner):
    plain = train(make_runner())
    more = "val_dataloader = test_dataloader\nval_cfg = dict(type='ValLoop')\nval_evaluator = test_evaluator"
    assert train(make_runner(more)) == plain


def test_best_checkpoint_survives_a_resume(make_runner, tmp_path):
    """Of a run of two epochs, and one resumed after the first that would find any other worse."""
    more = (
        "val_dataloader = test_dataloader\nval_cfg = dict(type='ValLoop')\nval_evaluator = test_evaluator\n"
        "default_hooks['checkpoint'].update(save_best='error', rule='less')\n"
    )
    train(make_runner(more), kill=8)
    (best,) = (tmp_path / "run").glob("best_*.pth")
    assert best.name == "best_error_iter_6.pth"
    resumed = make_runner(more, resume=True, load_from=str(tmp_path / "run" / "latest.pth"))
    score = torch.load(best, weights_only=True)["message_hub"]["runtime_info"]["best_score"]
    before = {}

    class Unbeaten(Hook):
        def before_val(self, runner):
            before["score"] = runner.message_hub.get_info("best_score")
            runner.message_hub.update_info("best_score", 0.0)

    resumed.register_hook(Unbeaten())
    train(resumed)
    assert before["score"] == score
    assert [path.name for path in (tmp_path / "run").glob("best_*.pth")] == [best.name]


def test_skipped_batches_are_not_read_on_resume(make_runner, tmp_path):
    train(make_runner(), kill=4)
    log = tmp_path / "read.txt"
    train(make_runner(log=log, resume=True, load_from=str(tmp_path / "run" / "latest.pth")))
    assert len(log.read_text().split()) == (12 - 3) * 2


def test_joint_batches_continue_after_a_resume(make_runner, tmp_path):
    """The language stream runs on over the epochs; a resumed run reads what the killed one had not."""
    more = (
        "train_dataloader['dataset'].update(type='StubJoint', size=17)\n"
        "train_dataloader['batch_sampler'] = dict(type='JointBatchSampler', language_batch_size=1)\n"
    )
    whole, rest = tmp_path / "whole.txt", tmp_path / "rest.txt"
    expected = train(make_runner(more, log=whole, work_dir="whole"))
    train(make_runner(more), kill=8)
    resumed = train(make_runner(more, log=rest, resume=True, load_from=str(tmp_path / "run" / "latest.pth")))
    assert resumed == expected[6:]
    read = whole.read_text().split()
    assert rest.read_text().split() == read[-len(read) // 2 :]
    assert len(read) == 12 * 3


def test_epochs_are_shuffled_differently_and_read_all_data(make_runner, tmp_path):
    log = tmp_path / "read.txt"
    train(make_runner(log=log))
    read = [int(line) for line in log.read_text().split()]
    assert sorted(read[:12]) == sorted(read[12:]) == list(range(12))
    assert read[:12] != read[12:]


def test_resume_within_an_epoch_needs_a_batch_sampler_with_start(make_runner, tmp_path):
    more = "train_dataloader['batch_sampler'] = None"
    train(make_runner(more), kill=4)
    runner = make_runner(more, resume=True, load_from=str(tmp_path / "run" / "latest.pth"))
    with pytest.raises(ValueError, match="3 batches of epoch 0: BatchSampler cannot skip"):
        runner.train()


def test_training_on_a_stream_needs_its_batch_sampler():
    class Streamed(list):
        data_list = StreamedSamples(None, ["0.tar"], [2], "sizes.json", shuffle_buffer=2)

    loop = ResumableEpochLoop(SimpleNamespace(optim_wrapper=None), DataLoader(Streamed([0, 1]), shuffle=True), 1)
    with pytest.raises(ValueError, match="0.tar is read as a stream.*batch_sampler=.*StreamBatchSampler.*in train_"):
        loop.run()


@DATASETS.register_module()
class DrawingData(StubData):
    """Draws from NumPy's generator while reading, as PatchLabelDataset does."""

    def __getitem__(self, index):
        data = super().__getitem__(index)
        return {"x": data["x"], "y": data["y"] + float(np.random.rand())}


def test_random_numbers_of_loading_are_equal_in_a_run_resumed_at_an_epoch(make_runner, tmp_path):
    more = (
        "train_dataloader['dataset']['type'] = 'DrawingData'\n"
        "train_dataloader['batch_sampler'] = None\n"
        "default_hooks['checkpoint'] = dict(interval=1, by_epoch=True)\n"
    )
    expected = train(make_runner(more, work_dir="whole"))
    train(make_runner(more), kill=8)
    assert train(make_runner(more, resume=True, load_from=str(tmp_path / "run" / "latest.pth"))) == expected[6:]


def test_seed_iteration_is_a_function_of_its_arguments():
    draws = []
    for arguments in [(0, 1, 0), (0, 2, 0), (1, 1, 0), (0, 1, 1), (0, 1, 0)]:
        seed_iteration(*arguments)
        draws.append(float(torch.rand(())))
    assert draws[0] == draws[-1]
    assert len(set(draws)) == 4
