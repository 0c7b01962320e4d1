"""dtype='auto': the faster one on a CPU, bfloat16 elsewhere; what is trained stays float32."""

import pytest
import torch
from transformers import LlamaConfig

from mmgpt.apis.precision import for_serving
from mmgpt.models.memory import probe
from mmgpt.registry import MODELS
from tests.models.test_flamingo import batch
from tests.models.test_lora import LORA

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.fixture
def seconds(monkeypatch):
    """A function that makes the probe's measurements, and the sizes that were measured."""
    sizes = []

    def measured(float32, bfloat16):
        times = dict(float32=float32, bfloat16=bfloat16)
        monkeypatch.setattr(probe, "layer_seconds", lambda *size: sizes.append(size) or times)
        monkeypatch.setattr(probe, "only_cpu", lambda: True)
        return sizes

    return measured


@pytest.mark.parametrize(("bfloat16", "dtype"), [(0.2, BFLOAT16), (0.95, FLOAT32), (3.0, FLOAT32)])
def test_a_cpu_takes_the_faster_dtype(seconds, bfloat16, dtype):
    sizes = seconds(1.0, bfloat16)
    config = LlamaConfig(hidden_size=576, intermediate_size=1536, num_attention_heads=9)
    assert probe.auto_dtype(config) == dtype
    assert probe.auto_dtype(config, "cpu") == dtype
    assert probe.auto_dtype(config, "cuda") == BFLOAT16
    assert sizes == [(9, 64, 1536)] * 2


def test_large_layers_are_measured_at_a_smaller_size(seconds):
    sizes = seconds(1.0, 0.2)
    probe.auto_dtype(LlamaConfig(hidden_size=8192, intermediate_size=28672, num_attention_heads=64))
    assert sizes == [(64, 32, 8192)]


def test_a_machine_with_an_accelerator_is_not_measured(monkeypatch):
    monkeypatch.setattr(probe, "layer_seconds", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert probe.auto_dtype(LlamaConfig()) == BFLOAT16


def test_the_measurement_has_a_time_for_each_dtype_and_is_remembered():
    times = probe.layer_seconds(2, 8, 32)
    assert list(times) == ["float32", "bfloat16"]
    assert all(value > 0 for value in times.values())
    assert probe.layer_seconds(2, 8, 32) is times


def dtypes(model):
    """The dtypes of a model's parts: the language model, its gated blocks, the trained parameters."""
    parts = {"language": set(), "gated": set(), "trained": set()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts["trained"].add(parameter.dtype)
        elif ".gated." in name:
            parts["gated"].add(parameter.dtype)
        elif "language." in name:
            parts["language"].add(parameter.dtype)
    return parts


def config_of(flamingo, **more):
    module = dict(flamingo, language=dict(flamingo["language"], dtype="auto"))
    return dict(type="LoRAModel", module=module, lora=LORA, **more)


def test_frozen_weights_are_bfloat16_and_trained_ones_float32(tiny_flamingo_config, seconds):
    seconds(1.0, 0.2)
    model = MODELS.build(config_of(tiny_flamingo_config))
    assert dtypes(model) == dict(language={BFLOAT16}, gated={BFLOAT16}, trained={FLOAT32})
    lora = {**LORA, "exclude_modules": r"(vision|perceiver)\..*|.*\.gated\..*"}
    lora["target_modules"] = ["q_proj", "v_proj"]
    model = MODELS.build({**config_of(tiny_flamingo_config, train=["gated"]), "lora": lora})
    assert dtypes(model) == dict(language={BFLOAT16}, gated=set(), trained={FLOAT32})
    # Without LoRA the gated blocks are trained, and here the language model, too.
    flamingo = config_of(tiny_flamingo_config)["module"]
    assert dtypes(MODELS.build(flamingo)) == dict(language={BFLOAT16}, gated=set(), trained={FLOAT32})
    model = MODELS.build({**flamingo, "frozen": ["vision", "perceiver"]})
    assert dtypes(model) == dict(language=set(), gated=set(), trained={FLOAT32})


def test_losses_are_those_of_float32_up_to_rounding(tiny_flamingo_config, seconds):
    losses = {}
    for bfloat16 in (0.2, 2.0):
        seconds(1.0, bfloat16)
        torch.manual_seed(0)
        model = MODELS.build(config_of(tiny_flamingo_config)).train()
        torch.manual_seed(0)
        for name, parameter in sorted(model.named_parameters()):
            if not name.endswith(("norm.weight", "norm.bias")) and (".gated." in name or "perceiver" in name):
                parameter.data = torch.randn(parameter.shape).mul(0.2).to(parameter.dtype)
        loss = sum(model(**batch(model), mode="loss").values())
        loss.backward()
        assert all(p.grad.dtype == FLOAT32 for p in model.parameters() if p.grad is not None)
        losses[bfloat16] = loss.item()
    assert losses[0.2] != losses[2.0]
    assert losses[0.2] == pytest.approx(losses[2.0], rel=0.01)


@pytest.mark.parametrize(("bfloat16", "dtype"), [(0.2, BFLOAT16), (2.0, FLOAT32)])
def test_all_weights_of_a_served_model_have_the_faster_dtype(tiny_flamingo_config, seconds, bfloat16, dtype):
    seconds(1.0, bfloat16)
    served = for_serving(MODELS.build(tiny_flamingo_config), "auto")
    assert {parameter.dtype for parameter in served.parameters()} == {dtype}
