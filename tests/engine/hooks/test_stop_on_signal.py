"""Signals in this process, in one with workers, and in one of two."""

import os
import signal
import time

import pytest
import torch

from mmgpt.cli.failures import Stopped
from mmgpt.engine.hooks.stop_on_signal import SIGNALS, StopOnSignalHook
from tests.helpers.launching import logs, train, train_on_two
from tests.helpers.stub_faults import FAULTY


def signalled(tmp_path, signum, sample=7, group=False):
    """What to append to the config, for a signal while that sample is read for the first time."""
    options = dict(signalled=sample, signum=int(signum), group=group, once=str(tmp_path / "once"))
    return FAULTY + f"train_dataloader['dataset'].update({options})\n"


def state(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("signum", "by_epoch"), [*((signum, False) for signum in SIGNALS), (signal.SIGTERM, True)])
def test_a_run_stopped_by_a_signal_is_resumed_to_the_same_weights(make_runner, tmp_path, signum, by_epoch):
    more = signalled(tmp_path, signum) + f"default_hooks['checkpoint'].update(by_epoch={by_epoch}, interval=1000)\n"
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Stopped) as stopped:
        make_runner(more).train()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    last = tmp_path / "run" / "latest.pth"
    assert stopped.value.signum == signum
    assert 0 < stopped.value.step < 12
    assert os.readlink(last) == "stopped.pth"
    assert state(last)["meta"]["iter"] == stopped.value.step

    resumed, whole = make_runner(more, resume=True, load_from=str(last)), make_runner(more, work_dir="whole")
    for runner in (resumed, whole):
        runner.train()
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_signal_waits_for_the_end_of_the_optimizer_step(make_runner, tmp_path):
    more = signalled(tmp_path, signal.SIGTERM) + "default_hooks['checkpoint']['interval'] = 1000\n"
    with pytest.raises(Stopped) as stopped:
        make_runner(more, accumulative_counts=4).train()
    assert stopped.value.step in (4, 8)


def test_a_step_is_not_saved_twice(make_runner, tmp_path):
    more = signalled(tmp_path, signal.SIGTERM) + "default_hooks['checkpoint']['interval'] = 1\n"
    with pytest.raises(Stopped) as stopped:
        make_runner(more).train()
    assert os.readlink(tmp_path / "run" / "latest.pth") == f"iter_{stopped.value.step}.pth"
    assert not (tmp_path / "run" / "stopped.pth").exists()


def test_a_second_interrupt_ends_at_once_but_not_one_of_the_same_keypress(monkeypatch):
    hook, now = StopOnSignalHook(), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(2):
        hook._receive(signal.SIGINT, None)
    now = 103.0
    hook._receive(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        hook._receive(signal.SIGINT, None)


def test_a_signal_to_the_whole_group_spares_the_loaders(tmp_path):
    """As torchrun and Slurm send it: the processes that load data get it too, and are needed to finish the step."""
    more = signalled(tmp_path, signal.SIGTERM, group=True) + "optim_wrapper = dict(accumulative_counts=6)\n"
    more += "workers = 2\ntrain_dataloader['dataset']['seconds'] = 0.05\n"
    more += "default_hooks['checkpoint']['interval'] = 6\n"
    done = train(tmp_path, more, "--work-dir", tmp_path / "run")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-2000:]
    assert "stopped by SIGTERM after" in done.stderr
    assert "go on with --resume" in done.stderr
    assert (tmp_path / "run" / "latest.pth").is_file()


def test_a_signal_to_one_of_two_processes_stops_both(tmp_path):
    done = train_on_two(tmp_path, signalled(tmp_path, signal.SIGUSR1))
    assert done.returncode != 0
    assert done.stderr.count("stopped by SIGUSR1 after") == 2, done.stderr[-3000:]
    assert "got SIGUSR1: saving after" in logs(tmp_path / "two")
    assert state(tmp_path / "two" / "latest.pth")["meta"]["iter"] <= 6
