"""The hooks of a run, for configs with default hooks, custom hooks, both or none."""

import os
import signal

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook

from mmgpt.cli import load_config
from mmgpt.cli.failures import Stopped
from mmgpt.engine.hooks.default_hooks import DEFAULT_HOOKS, disabled_hook_lines, hooks_of_run
from mmgpt.engine.runner import MMGPTRunner
from mmgpt.registry import HOOKS
from tests.helpers.launching import logs, train
from tests.helpers.stub_faults import FAULTY
from tests.helpers.stub_training import write_config

GUARDS = ["StepInfoHook", "NonFiniteHook", "ZeroGradientsHook", "DroppedSamplesHook", "TrainableCheckpointHook"]
GUARDS += ["StopOnSignalHook", "ModelSummaryHook", "ThroughputHook", "ProgressBarHook"]
OWN = "custom_imports['imports'] += ['tests.engine.hooks.test_default_hooks']\n"
OWN += "custom_hooks = [dict(type='OwnHook'), None]\n"


@HOOKS.register_module(force=True)
class OwnHook(Hook):
    """Custom hook of an experiment."""


def names(runner):
    return [type(hook).__name__ for hook in runner.hooks]


def signalled(tmp_path):
    options = dict(signalled=7, signum=int(signal.SIGTERM), once=str(tmp_path / "once"))
    return FAULTY + f"train_dataloader['dataset'].update({options})\n"


@pytest.mark.parametrize(
    "more",
    [
        "",
        OWN,
        "custom_hooks = None\n",
        "default_hooks = None\n",
        "default_hooks = dict(_delete_=True, logger=dict(type='LoggerHook', interval=1))\n",
        "default_hooks = dict(_delete_=True, timer=dict(type='mmengine.IterTimerHook'))\ncustom_hooks = None\n",
    ],
)
def test_default_hooks_are_there_whatever_a_config_sets(make_runner, more):
    hooks = names(make_runner(more))
    assert all(hooks.count(name) == 1 for name in GUARDS), hooks
    assert ("OwnHook" in hooks) == (more == OWN)
    assert len(hooks) == len(DEFAULT_HOOKS) + (more == OWN)
    # Steps are judged before their loss is logged; a signal ends a run after its checkpoint.
    order = ["StepInfoHook", "NonFiniteHook", "IterTimerHook", "ThroughputHook", "LoggerHook", "ParamSchedulerHook"]
    order += ["ProgressBarHook", "TrainableCheckpointHook", "StopOnSignalHook"]
    assert [name for name in hooks if name in order] == order


def test_a_config_without_bases_has_the_default_hooks(tmp_path, make_runner):
    """The config does not set the default scope either."""
    left_out = ("default_scope", "default_hooks", "custom_hooks", "log_processor", "visualizer", "model_wrapper_cfg")
    cfg = load_config(write_config(tmp_path)).to_dict()
    cfg = Config({key: value for key, value in cfg.items() if key not in left_out})
    cfg.work_dir, cfg.experiment_name = str(tmp_path / "run"), tmp_path.name
    runner = MMGPTRunner.from_cfg(cfg)
    assert "default_scope" not in cfg
    assert set(GUARDS) <= set(names(runner))
    runner.train()
    state = torch.load(tmp_path / "run" / "latest.pth", weights_only=True)
    assert set(state["state_dict"]) < set(runner.model.state_dict())
    assert state["meta"]["iter"] == 12


@pytest.mark.parametrize("name", [*DEFAULT_HOOKS, "answers"])
def test_a_hook_set_to_none_is_off(make_runner, tmp_path, name):
    """Training, validation and test run without any of them."""
    more = "val_dataloader = test_dataloader\nval_cfg = dict(type='ValLoop')\nval_evaluator = test_evaluator\n"
    runner = make_runner(FAULTY + more + f"default_hooks['{name}'] = None\n", max_epochs=1)
    runner.train()
    assert runner.iter == 6
    assert runner.test()["error"] > 0
    kind = DEFAULT_HOOKS.get(name, dict(type="mmgpt.AnswersHook"))["type"].removeprefix("mmgpt.")
    assert kind not in names(runner)
    assert len(set(GUARDS) & set(names(runner))) == len(GUARDS) - (kind in GUARDS)
    text = logs(tmp_path / "run")
    line = "turned off\n" if name in DEFAULT_HOOKS else "not a default hook"
    assert f"default_hooks.{name}=None: {line}" in text
    assert (tmp_path / "run" / "latest.pth").exists() == (name != "checkpoint")


def test_arguments_of_a_default_hook_are_changed_without_a_type(make_runner):
    more = (
        "default_hooks = dict(_delete_=True, nonfinite=dict(patience=3), checkpoint=dict(interval=2, by_epoch=False))\n"
    )
    hooks = {type(hook).__name__: hook for hook in make_runner(more).hooks}
    assert hooks["NonFiniteHook"].patience == 3
    assert hooks["NonFiniteHook"].priority == "HIGH"
    assert hooks["TrainableCheckpointHook"].interval == 2


@pytest.mark.parametrize(
    "more",
    [
        "custom_hooks = [dict(type='ProgressBarHook'), dict(type='NonFiniteHook', patience=3)]\n",
        "custom_hooks = [dict(type='mmgpt.NonFiniteHook', patience=3)]\n",
        "default_hooks = dict(nan=dict(type='NonFiniteHook', patience=3))\n",
        "default_hooks = dict(nonfinite=None)\ncustom_hooks = [dict(type='NonFiniteHook', patience=3)]\n",
    ],
)
def test_a_hook_that_is_listed_elsewhere_is_not_added_twice(make_runner, more):
    """Configs of earlier releases listed these hooks in `custom_hooks`."""
    runner = make_runner(more)
    assert all(names(runner).count(name) == 1 for name in GUARDS)
    assert [hook.patience for hook in runner.hooks if type(hook).__name__ == "NonFiniteHook"] == [3]


def test_built_hooks_and_further_hooks_of_mmengine_stay():
    logger, mine = LoggerHook(interval=7), HOOKS.build(dict(type="StopOnSignalHook"))
    hooks = hooks_of_run(dict(logger=logger), [mine, dict(type="LoggerHook", interval=3)])
    assert logger in hooks
    assert mine in hooks
    assert dict(type="LoggerHook", interval=3) in hooks
    assert len(hooks) == len(DEFAULT_HOOKS) + 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            "default_hooks['checkpoint'] = dict(type='CheckpointHook', interval=1)\n",
            ["CheckpointHook", "frozen weights"],
        ),
        ("custom_hooks = [dict(type='mmengine.CheckpointHook')]\n", ["type='TrainableCheckpointHook'"]),
        ("custom_hooks = 'StopOnSignalHook'\n", ["custom_hooks is a str", "list of hooks"]),
        (
            "default_hooks['nonfinit'] = dict(patience=3)\n",
            ["default_hooks.nonfinit={'patience': 3} has no type"],
        ),
        ("custom_hooks = [None, dict(patience=3)]\n", ["custom_hooks[1]={'patience': 3} has no type"]),
    ],
)
def test_wrong_hooks_are_refused_before_the_model_is_built(make_runner, monkeypatch, more, words):
    monkeypatch.setattr(MMGPTRunner, "build_model", lambda *_: pytest.fail("the model was built"))
    with pytest.raises(ValueError) as refused:
        make_runner(more)
    assert all(word in str(refused.value) for word in words)


def test_a_misspelt_name_set_to_none_is_logged_with_the_nearest_one():
    [line] = disabled_hook_lines(dict(nonfinit=None, nonfinite=dict(patience=3)))
    assert line.startswith("default_hooks.nonfinit=None: not a default hook; did you mean 'nonfinite'?")


def test_default_hooks_that_are_a_list_are_refused():
    with pytest.raises(ValueError, match="default_hooks is a list: it has to be a dict of hooks by name"):
        hooks_of_run([dict(type="StopOnSignalHook")], None)


def test_a_signal_saves_with_custom_hooks_too(make_runner, tmp_path):
    with pytest.raises(Stopped) as stopped:
        make_runner(signalled(tmp_path) + OWN + "default_hooks['checkpoint']['interval'] = 1000\n").train()
    assert stopped.value.saved
    assert os.readlink(tmp_path / "run" / "latest.pth") == "stopped.pth"


def test_a_signal_without_a_checkpoint_hook_ends_the_run_unsaved(tmp_path):
    done = train(tmp_path, signalled(tmp_path) + "default_hooks['checkpoint'] = None\n", "--work-dir", tmp_path / "run")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-2000:]
    assert "batches, which are not saved: the run writes no checkpoints\n" in done.stderr
    assert not list((tmp_path / "run").glob("*.pth"))


def test_loading_is_strict_without_a_checkpoint_hook(make_runner, tmp_path):
    torch.save({"state_dict": {"norm.weigth": torch.zeros(4)}}, tmp_path / "other.pth")
    runner = make_runner("default_hooks['checkpoint'] = None\n", load_from=str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="does not belong to the model of this config"):
        runner.train()


def test_ema_hook_is_refused():
    with pytest.raises(ValueError, match="the hook EMAHook: .* checkpoints hold only what is trainable"):
        hooks_of_run({}, [dict(type="EMAHook")])
