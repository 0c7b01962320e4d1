"""Which hooks a run has, by what its config says of them."""

import os
import signal

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook

from mmgpt.cli import load_config
from mmgpt.cli.failures import Stopped
from mmgpt.engine.hooks.guards import EVERY_RUN, hooks_of_run, turned_off
from mmgpt.engine.runner import MMGPTRunner
from mmgpt.registry import HOOKS
from tests.helpers.launching import logs, train
from tests.helpers.stub_faults import FAULTY
from tests.helpers.stub_training import write_config

GUARDS = ["StepInfoHook", "NonFiniteHook", "ZeroGradientsHook", "DroppedSamplesHook", "TrainableCheckpointHook"]
GUARDS += ["StopOnSignalHook", "ModelSummaryHook", "ThroughputHook", "ProgressBarHook"]
OWN = "custom_imports['imports'] += ['tests.engine.hooks.test_guards']\ncustom_hooks = [dict(type='OwnHook'), None]\n"


@HOOKS.register_module(force=True)
class OwnHook(Hook):
    """An experiment's own."""


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
def test_guards_are_there_whatever_an_experiment_says(make_runner, more):
    found = names(make_runner(more))
    assert all(found.count(name) == 1 for name in GUARDS), found
    assert ("OwnHook" in found) == (more == OWN)
    assert len(found) == len(EVERY_RUN) + (more == OWN)
    # Steps are judged before their loss is logged; a signal ends a run after its checkpoint.
    order = ["StepInfoHook", "NonFiniteHook", "IterTimerHook", "ThroughputHook", "LoggerHook", "ParamSchedulerHook"]
    order += ["ProgressBarHook", "TrainableCheckpointHook", "StopOnSignalHook"]
    assert [name for name in found if name in order] == order


def test_a_config_without_the_bases_has_the_guards(tmp_path, make_runner):
    """Nor does it name the scope in which our parts are found."""
    left_out = ("default_scope", "default_hooks", "custom_hooks", "log_processor", "visualizer", "model_wrapper_cfg")
    cfg = load_config(write_config(tmp_path)).to_dict()
    cfg = Config({key: value for key, value in cfg.items() if key not in left_out})
    cfg.work_dir, cfg.experiment_name = str(tmp_path / "run"), tmp_path.name
    runner = MMGPTRunner.from_cfg(cfg)
    assert "default_scope" not in cfg and set(GUARDS) <= set(names(runner))
    runner.train()
    state = torch.load(tmp_path / "run" / "latest.pth", weights_only=True)
    assert set(state["state_dict"]) < set(runner.model.state_dict()) and state["meta"]["iter"] == 12


@pytest.mark.parametrize("name", [*EVERY_RUN, "answers"])
def test_a_hook_set_to_none_is_off(make_runner, tmp_path, name):
    """Training, validation and test run without any of them."""
    more = "val_dataloader = test_dataloader\nval_cfg = dict(type='ValLoop')\nval_evaluator = test_evaluator\n"
    runner = make_runner(FAULTY + more + f"default_hooks['{name}'] = None\n", max_epochs=1)
    runner.train()
    assert runner.iter == 6 and runner.test()["error"] > 0
    kind = EVERY_RUN.get(name, dict(type="mmgpt.AnswersHook"))["type"].removeprefix("mmgpt.")
    assert kind not in names(runner) and len(set(GUARDS) & set(names(runner))) == len(GUARDS) - (kind in GUARDS)
    text = logs(tmp_path / "run")
    said = "turned off\n" if name in EVERY_RUN else "not a hook that every run has"
    assert f"default_hooks.{name}=None: {said}" in text
    assert (tmp_path / "run" / "latest.pth").exists() == (name != "checkpoint")


def test_arguments_are_changed_without_a_type(make_runner):
    more = (
        "default_hooks = dict(_delete_=True, nonfinite=dict(patience=3), checkpoint=dict(interval=2, by_epoch=False))\n"
    )
    hooks = {type(hook).__name__: hook for hook in make_runner(more).hooks}
    assert hooks["NonFiniteHook"].patience == 3 and hooks["NonFiniteHook"].priority == "HIGH"
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
    """As in an experiment that copied the list in which they stood once."""
    runner = make_runner(more)
    assert all(names(runner).count(name) == 1 for name in GUARDS)
    assert [hook.patience for hook in runner.hooks if type(hook).__name__ == "NonFiniteHook"] == [3]


def test_hooks_that_are_built_already_and_further_ones_of_mmengine_stay():
    logger, mine = LoggerHook(interval=7), HOOKS.build(dict(type="StopOnSignalHook"))
    hooks = hooks_of_run(dict(logger=logger), [mine, dict(type="LoggerHook", interval=3)])
    assert logger in hooks and mine in hooks and dict(type="LoggerHook", interval=3) in hooks
    assert len(hooks) == len(EVERY_RUN) + 1


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
def test_what_would_lose_a_guard_is_refused_before_the_model_is_built(make_runner, monkeypatch, more, words):
    monkeypatch.setattr(MMGPTRunner, "build_model", lambda *_: pytest.fail("the model was built"))
    with pytest.raises(ValueError) as refused:
        make_runner(more)
    assert all(word in str(refused.value) for word in words)


def test_a_misspelt_name_that_turns_off_nothing_is_told():
    [line] = turned_off(dict(nonfinit=None, nonfinite=dict(patience=3)))
    assert line.startswith("default_hooks.nonfinit=None: not a hook that every run has; did you mean 'nonfinite'?")


def test_default_hooks_that_are_a_list_are_refused():
    with pytest.raises(ValueError, match="default_hooks is a list: it has to be a dict of hooks by name"):
        hooks_of_run([dict(type="StopOnSignalHook")], None)


def test_a_signal_saves_though_an_experiment_has_hooks_of_its_own(make_runner, tmp_path):
    with pytest.raises(Stopped) as stopped:
        make_runner(signalled(tmp_path) + OWN + "default_hooks['checkpoint']['interval'] = 1000\n").train()
    assert stopped.value.saved and os.readlink(tmp_path / "run" / "latest.pth") == "stopped.pth"


def test_without_checkpoints_a_signal_ends_the_run_and_nothing_is_said_to_be_saved(tmp_path):
    done = train(tmp_path, signalled(tmp_path) + "default_hooks['checkpoint'] = None\n", "--work-dir", tmp_path / "run")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-2000:]
    assert "batches, which are not saved: the run writes no checkpoints\n" in done.stderr
    assert not list((tmp_path / "run").glob("*.pth"))


def test_without_checkpoints_loading_is_as_strict(make_runner, tmp_path):
    torch.save({"state_dict": {"norm.weigth": torch.zeros(4)}}, tmp_path / "other.pth")
    runner = make_runner("default_hooks['checkpoint'] = None\n", load_from=str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="does not belong to the model of this config"):
        runner.train()


def test_averages_of_all_weights_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="the hook EMAHook: .* checkpoints hold only what is trained"):
        hooks_of_run({}, [dict(type="EMAHook")])
