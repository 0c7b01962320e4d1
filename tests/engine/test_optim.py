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
    assert decayed["weight_decay"] == cfg.optim_wrapper.optimizer.weight_decay == 0.1 and plain["weight_decay"] == 0
    assert len(plain["params"]) == 6
    assert {group["lr"] for group in (decayed, plain)} == {cfg.lr}


def test_unknown_paramwise_key_and_frozen_model_are_refused(model):
    cfg = schedule("tiny").optim_wrapper
    with pytest.raises(ValueError, match="decay_mult.*choose among 'custom_keys' and 'decayed'"):
        build_optim_wrapper(model, {**cfg, "paramwise_cfg": dict(decay_mult=1)})
    with pytest.raises(ValueError, match="nothing to train"):
        build_optim_wrapper(model.requires_grad_(False), cfg)


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
    assert 0 < top < 6 and rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
