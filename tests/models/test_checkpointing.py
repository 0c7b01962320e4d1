"""Training that computes layers again against training that keeps everything."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers.modeling_layers import GradientCheckpointingLayer

from mmgpt.models.transformers_names import set_activation_checkpointing
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close
from tests.models.test_flamingo import batch
from tests.models.test_gated_lm import WITHOUT_KEYWORDS, gated
from tests.models.test_gated_lm import batch as gated_batch
from tests.models.test_lora import LORA
from tests.models.test_loss import assert_equal_gradients, gradients


def built(config, checkpointing, lora=None, **changes):
    """The same weights each time, with dropout where LoRA is, in training mode."""
    torch.manual_seed(0)
    config = dict(config, checkpointing=checkpointing, **changes)
    model = MODELS.build(config if lora is None else dict(type="LoRAModel", module=config, lora=lora)).train()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def step(model):
    """The loss, its gradients, and the bytes of activations that the forward pass kept for them."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    data = batch(model)
    torch.manual_seed(2)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(model(**data, mode="loss").values())
    return loss, gradients(model, loss), sum(size for place, size in kept.items() if place not in known)


def compare(config, lora=None, **changes):
    plain, again = (step(built(config, checkpointing, lora, **changes)) for checkpointing in (False, True))
    assert_close(again[0], plain[0])
    assert_equal_gradients(again[1], plain[1])
    assert again[2] < 0.45 * plain[2]
    return again[1]


def test_lora_gives_equal_gradients(tiny_flamingo_config):
    found = compare(tiny_flamingo_config, dict(LORA, lora_dropout=0.2))
    assert sum("lora_B" in name for name in found) == 4 * 4 + 2 * 5
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


def test_lora_gives_equal_gradients_where_layers_get_no_keywords(tiny_flamingo_config, tiny_v2):
    lora = dict(LORA, target_modules=["to_q", "ff.1"])
    found = compare(dict(tiny_flamingo_config, language=dict(path=tiny_v2)), lora)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())
    assert len(found) == 2 * 2 * 2


@pytest.mark.parametrize("frozen", [("vision", "language"), ()])
def test_full_training_gives_equal_gradients(tiny_flamingo_config, frozen):
    found = compare(tiny_flamingo_config, frozen=frozen)
    assert any(name.startswith("perceiver.") for name in found)
    assert any(".gated." in name for name in found)


def test_layers_before_all_trainable_ones_get_no_backward_pass(tiny_flamingo_config):
    model = built(tiny_flamingo_config, True)
    passed = []
    model.language.model.model.layers[0].register_full_backward_hook(lambda *_: passed.append(0))
    model.language.model.model.layers[2].register_full_backward_hook(lambda *_: passed.append(2))
    sum(model(**batch(model), mode="loss").values()).backward()
    assert passed == [2]


@pytest.mark.parametrize("family", WITHOUT_KEYWORDS)
def test_the_recomputed_forward_gets_its_images_from_the_context(family):
    ids, attention, features, counts = gated_batch()
    found = []
    for checkpointing in (False, True):
        model = gated(family)
        if checkpointing:
            set_activation_checkpointing(model, True)
        for layer in model.modules():
            layer.training = isinstance(layer, GradientCheckpointingLayer)  # without the families' dropout
        out = model(ids, attention, media=model.media(ids, features, counts), use_cache=False).logits
        found.append(gradients(model, out.square().mean()))
    assert_equal_gradients(*found)
    assert any("to_kv" in name and gradient.any() for name, gradient in found[1].items())
