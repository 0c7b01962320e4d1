"""LoRA on a language model whose frozen matrices have 8 or 4 bits."""

import sys
from copy import deepcopy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmgpt.apis.export import merge
from mmgpt.apis.precision import for_serving, unquantized
from mmgpt.models.memory.quantization import BYTES, is_quantized, quantized_parameters
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close
from tests.models.test_flamingo import batch
from tests.models.test_lora import LORA
from tests.models.test_loss import assert_equal_gradients, gradients


@pytest.fixture(autouse=True)
def _installed(request):
    if "without" not in request.node.name:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (requirements/quantization.txt)")


def built(config, precision, **changes):
    torch.manual_seed(0)
    module = dict(config, language=dict(config["language"], precision=precision), **changes)
    model = MODELS.build(dict(type="LoRAModel", module=module, lora=LORA)).train()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.to("cpu")


@torch.no_grad()
def rounded(model, quantized):
    """The model with the dequantized weights of a quantized one."""
    from bitsandbytes.functional import dequantize_4bit

    for (name, ours), theirs in zip(model.named_parameters(), quantized.parameters(), strict=True):
        if theirs.dtype == torch.uint8:
            assert not torch.equal(ours, dequantize_4bit(theirs.data, theirs.quant_state)), name
            ours.copy_(dequantize_4bit(theirs.data, theirs.quant_state))
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_gets_the_gradients_of_a_model_with_the_rounded_weights(tiny_flamingo_config, checkpointing):
    quantized = built(tiny_flamingo_config, "int4", checkpointing=checkpointing)
    plain = rounded(built(tiny_flamingo_config, None), quantized)
    data, results = batch(plain), []
    for model in (plain, quantized):
        losses = model(**data, mode="loss")
        results.append((losses, gradients(model, sum(losses.values()))))
    assert_close(results[1][0], results[0][0])
    assert_equal_gradients(results[0][1], results[1][1])
    assert sum("lora_B" in name and gradient.any().item() for name, gradient in results[1][1].items()) == 26


@pytest.mark.parametrize(("precision", "stored"), [("int8", torch.int8), ("int4", torch.uint8)])
def test_the_layers_that_are_quantized_and_their_bytes(tiny_flamingo_config, precision, stored):
    model = built(tiny_flamingo_config, precision)
    small = {name: p for name, p in model.named_parameters() if p.dtype == stored}
    # Seven matrices in each of four layers: none of gated blocks, of LoRA, embedding or head.
    assert len(small) == 28
    assert all("_proj." in name and ".lora_" not in name for name in small)
    weights = quantized_parameters(built(tiny_flamingo_config, None).module.language.model)
    count = sum(p.numel() for p in weights)
    assert len(weights) == 28
    assert count == 4 * (4 * 32 * 32 + 3 * 32 * 64)
    scales = [p.quant_state.absmax for p in small.values()] if precision == "int4" else []
    bytes_ = sum(p.nbytes for p in [*small.values(), *scales])
    assert bytes_ == pytest.approx(BYTES[precision] * count, rel=1e-3)
    sum(model(**batch(model), mode="loss").values()).backward()
    assert all(p.grad.any() for name, p in model.named_parameters() if "lora_B" in name)


def test_quantized_weights_are_neither_quantized_again_nor_merged_into(tiny_flamingo_config):
    from mmengine.config import Config

    model = built(tiny_flamingo_config, "int4")
    assert is_quantized(model)
    assert not is_quantized(built(tiny_flamingo_config, None))
    with pytest.raises(ValueError, match=r"quantized already: build it with language\.precision=None"):
        for_serving(model)
    with pytest.raises(ValueError, match="not merged into quantized weights"):
        merge(Config(), model, "nowhere", 0.1)
    language = dict(path="x", precision="int4", dtype="float32")
    cfg = Config(dict(model=dict(module=dict(language=language))))
    assert unquantized(cfg).model.module.language == dict(path="x", dtype="float32")
    assert unquantized(cfg, "bfloat16").model.module.language == dict(path="x", dtype="bfloat16")
    assert cfg.model.module.language.precision == "int4"


def test_a_trained_language_model_is_not_quantized(tiny_flamingo_config):
    config = dict(tiny_flamingo_config, language=dict(path="nowhere", precision="int4"), frozen=["vision"])
    with pytest.raises(ValueError, match="language.precision='int4': a quantized language model cannot be trained"):
        MODELS.build(config)
    with pytest.raises(ValueError, match="precision='int3': choose one of int8, int4"):
        MODELS.build({**config, "language": dict(path="nowhere", precision="int3")})


def test_without_bitsandbytes_the_message_names_the_requirements(tiny_flamingo_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="'int4' needs bitsandbytes: pip install -r requirements/quantization.txt"):
        built(tiny_flamingo_config, "int4")


def test_an_optimizer_of_8_bits_is_chosen_by_config(tmp_path):
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 64), torch.randn(128, 64)
    cfg = dict(constructor="TrainableOptimWrapperConstructor", optimizer=dict(type="AdamW8bit", lr=0.01))
    wrapper = build_optim_wrapper(layer, cfg)
    losses = []
    for _ in range(20):
        loss = (layer(x) - x).square().mean()
        losses.append(loss.item())
        wrapper.update_params(loss)
    assert losses[-1] < 0.5 * losses[0]
    state = wrapper.optimizer.state[layer.weight]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8

    # Training resumed from a checkpoint equals training without one.
    torch.save(wrapper.optimizer.state_dict(), tmp_path / "optimizer.pth")
    other = deepcopy(layer)
    resumed = build_optim_wrapper(other, cfg)
    resumed.optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pth", weights_only=True))
    for model, optimizer in ((layer, wrapper), (other, resumed)):
        optimizer.update_params((model(x) - x).square().mean())
    assert torch.equal(layer.weight, other.weight)
