from copy import deepcopy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmgpt.cli import load_config

SCHEDULES = ["lora_1e-5", "tiny"]


@pytest.fixture
def model():
    block = nn.ModuleDict(dict(to_q=nn.Linear(2, 2), norm=nn.LayerNorm(2)))
    result = nn.ModuleDict(dict(gated_block=block, other=nn.Linear(2, 2), frozen=nn.Linear(2, 2)))
    block.register_parameter("gate", nn.Parameter(torch.zeros(1)))
    result["frozen"].requires_grad_(False)
    return result


def names(model, group):
    return {name for name, parameter in model.named_parameters() if any(parameter is p for p in group["params"])}


def schedule(name):
    from tests.helpers.stub_training import CONFIGS

    return load_config(CONFIGS / "_base_" / "schedules" / f"{name}.py")


@pytest.fixture(autouse=True)
def scope():
    """As in a run."""
    with DefaultScope.overwrite_default_scope("mmgpt"):
        yield


@pytest.mark.parametrize("name", SCHEDULES)
def test_only_matrices_of_the_gated_blocks_decay(model, name):
    cfg = schedule(name)
    decayed, plain = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert names(model, decayed) == {"gated_block.to_q.weight"}
    assert decayed["weight_decay"] == cfg.optim_wrapper.optimizer.weight_decay == 0.1
    assert plain["weight_decay"] == 0
    assert len(plain["params"]) == 6
    assert {group["lr"] for group in (decayed, plain)} == {cfg.lr}


def test_unknown_paramwise_key_and_frozen_model_are_refused(model):
    cfg = schedule("tiny").optim_wrapper
    with pytest.raises(ValueError, match="decay_mult.*choose among 'custom_keys' and 'decayed'"):
        build_optim_wrapper(model, {**cfg, "paramwise_cfg": dict(decay_mult=1)})
    with pytest.raises(ValueError, match="nothing to train"):
        build_optim_wrapper(model.requires_grad_(False), cfg)


KEYS = {"other": dict(lr_mult=10, decay_mult=0.5), "gated_block.to_q": dict(lr_mult=3), "gated_block": dict(lr_mult=2)}


def test_each_key_has_its_rate_and_decay_and_the_groups_are_logged(model, monkeypatch):
    """The longest key that fits decides; vectors never decay; what no key takes comes first, as without keys."""
    lines = []
    monkeypatch.setattr("mmgpt.engine.optim.print_log", lambda text, *_: lines.extend(text.splitlines()))
    model["last"] = nn.Linear(2, 1)
    cfg = {**schedule("tiny").optim_wrapper, "paramwise_cfg": dict(decayed="to_q", custom_keys=KEYS)}
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    block = {f"gated_block.{name}" for name in ("gate", "norm.weight", "norm.bias")}
    assert [(group.get("name"), group["lr"], group["weight_decay"], names(model, group)) for group in groups] == [
        (None, 2e-3, 0, {"last.weight", "last.bias"}),
        ("gated_block", 4e-3, 0, block),
        ("gated_block.to_q", 6e-3, 0.1, {"gated_block.to_q.weight"}),
        ("gated_block.to_q", 6e-3, 0, {"gated_block.to_q.bias"}),
        ("other", 2e-2, 0.05, {"other.weight"}),
        ("other", 2e-2, 0, {"other.bias"}),
    ]
    assert lines[0] == "Parameter groups of the optimizer:"
    assert "  other: 1 tensors, 4 parameters, lr 0.02, weight decay 0.05" in lines


@pytest.mark.parametrize(
    ("custom_keys", "message"),
    [
        (dict(gatd_block=dict(lr_mult=2)), "'gatd_block' fits no trainable parameter; did you mean 'gated_block'"),
        (dict(frozen=dict(lr_mult=2)), "'frozen' fits no trainable parameter.*Choices: gated_block, other"),
        (
            dict(gated=dict(lr_mult=2), gated_block=dict(lr_mult=3)),
            r"'gated' takes no .*\['gated_block'\] do not",
        ),
        (dict(other=dict(lr=2)), r"custom_keys\['other'\]=.*give a dict of lr_mult and decay_mult"),
        (dict(other=dict(lr_mult="2")), r"custom_keys\['other'\].lr_mult='2': give a number"),
        (dict(other=dict(decay_mult=-1)), "decay_mult=-1: give a number of at least 0"),
        (dict(other=dict(lr_mult=0)), "lr_mult=0 would train nothing"),
    ],
)
def test_wrong_keys_are_refused(model, custom_keys, message):
    cfg = {**schedule("tiny").optim_wrapper, "paramwise_cfg": dict(custom_keys=custom_keys)}
    with pytest.raises(ValueError, match=message):
        build_optim_wrapper(model, cfg)


def test_a_multiple_of_a_rate_that_is_not_set_is_refused(model):
    cfg = dict(optimizer=dict(type="AdamW"), constructor="TrainableOptimWrapperConstructor")
    with pytest.raises(ValueError, match="lr_mult multiplies optimizer.lr, which is not set"):
        build_optim_wrapper(model, {**cfg, "paramwise_cfg": dict(custom_keys=dict(other=dict(lr_mult=2)))})


def test_a_component_of_the_model_summary_is_a_key():
    layer = nn.ModuleDict(dict(gated=nn.Linear(2, 2), lora_A=nn.Linear(2, 2)))
    cfg = {**schedule("tiny").optim_wrapper, "paramwise_cfg": dict(custom_keys={"LoRA": dict(lr_mult=4)})}
    model = nn.ModuleDict(dict(language=nn.ModuleDict(dict(gated=layer))))
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    assert [(group.get("name"), group["lr"]) for group in groups] == [(None, 2e-3), (None, 2e-3), *2 * [("LoRA", 8e-3)]]
    assert all(".lora_A." in name for group in groups[2:] for name in names(model, group))


def test_short_last_step_of_an_epoch_is_divided_by_its_own_count(make_runner):
    """Twice 6 batches in steps of 4 and 2; gradients are clipped once a step; the rate is warmed up, then falls."""
    runner = make_runner(accumulative_counts=4)
    factors, clipped, rates = [], [], []
    runner.train_loop  # noqa: B018  (builds the loop)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    scale, clip, step = wrapper.scale_loss, wrapper._clip_grad, wrapper.step

    def noted_scale(loss):
        scaled = scale(loss)
        factors.append(round(float(loss / scaled)))
        rates.append(wrapper.param_groups[0]["lr"])
        return scaled

    wrapper.scale_loss, wrapper.step = noted_scale, step
    wrapper._clip_grad = lambda: (clipped.append(len(factors)), clip())
    runner.optim_wrapper = wrapper
    runner.train()
    assert factors == 2 * ([4] * 4 + [2] * 2)
    assert clipped == [4, 6, 10, 12]
    top = rates.index(max(rates))
    assert 0 < top < 6
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def steps(model, **optimizer):
    """The optimizer, and the weights after some of its steps with gradients of one value for each weight."""
    cfg = dict(optimizer=dict(type="AdamW", lr=0.1) | optimizer, constructor="TrainableOptimWrapperConstructor")
    built = build_optim_wrapper(model, cfg).optimizer
    for i in range(3):
        for number, weight in enumerate(built.param_groups[0]["params"]):
            weight.grad = torch.full_like(weight, (i - 0.5) * (number + 1))
        built.step()
    return built, {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}


def test_the_optimizer_is_fused_where_all_weights_are_on_a_gpu(model, monkeypatch):
    assert steps(model)[0].defaults["fused"] is None
    monkeypatch.setattr(nn.Parameter, "is_cuda", property(lambda weight: True), raising=False)
    assert steps(model)[0].defaults["fused"] is True
    assert steps(model, type=torch.optim.SGD)[0].defaults["fused"] is True
    assert steps(model, fused=False)[0].defaults["fused"] is False
    assert steps(model, foreach=True)[0].defaults["fused"] is None
    assert "fused" not in steps(model, type="Adamax")[0].defaults
    assert steps(model, type="Adagrad")[0].defaults["fused"] is None


def test_a_fused_step_equals_a_plain_one(model):
    _, plain = steps(deepcopy(model), fused=False)
    _, fused = steps(deepcopy(model), fused=True)
    torch.testing.assert_close(fused, plain)
    assert not torch.equal(plain["other.weight"], model["other"].weight)


@pytest.mark.gpu
def test_a_fused_step_on_a_gpu_equals_one_on_a_cpu(model):
    _, plain = steps(deepcopy(model))
    optimizer, fused = steps(deepcopy(model).cuda())
    assert optimizer.defaults["fused"] is True
    torch.testing.assert_close(fused, plain)
