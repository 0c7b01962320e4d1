"""LoRA around the model: what is trained, and that it changes nothing before training."""

import pytest
import torch

from mmgpt.registry import MODELS

from .test_flamingo import batch

LORA = dict(
    r=4,
    lora_alpha=4,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3"],
    exclude_modules=r"(vision|perceiver)\..*",
)


@pytest.fixture
def config(tiny_flamingo_config):
    return dict(type="LoRAModel", module=tiny_flamingo_config, lora=LORA)


def trained(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_only_lora_is_trained_in_language_model_and_gated_blocks(config):
    model = MODELS.build(config)
    names = trained(model)
    assert names and all("lora_" in name and ".language." in name for name in names)
    for layer in (
        "self_attn.q_proj",
        "gated.attn.to_q",
        "gated.attn.to_kv",
        "gated.attn.to_out",
        "gated.ff.1",
        "gated.ff.3",
    ):
        assert any(f".{layer}.lora_A" in name for name in names), layer
    rank = next(p for name, p in model.named_parameters() if "lora_A" in name).shape[0]
    assert rank == 4


def test_untrained_lora_changes_nothing_and_trained_lora_can_be_disabled(config):
    torch.manual_seed(0)
    model = MODELS.build(config).eval()
    data = batch(model)
    before = model(**data, mode="tensor")
    with model.disabled():
        assert torch.equal(model(**data, mode="tensor"), before)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert not torch.allclose(model(**data, mode="tensor"), before)
    with model.disabled():
        assert torch.equal(model(**data, mode="tensor"), before)


def test_every_lora_b_gets_a_gradient(config):
    model = MODELS.build(config).train()
    sum(model(**batch(model), mode="loss").values()).backward()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not model.module.vision.training


def test_new_embedding_rows_are_trained_on_demand(config):
    model = MODELS.build(dict(config, train_tokens=["<image>"]))
    names = [name for name in trained(model) if "lora_" not in name]
    assert len(names) == 1 and "embed_tokens" in names[0]
    delta = dict(model.named_parameters())[names[0]]
    assert delta.shape == (1, 32)
    sum(model(**batch(model), mode="loss").values()).backward()
    assert delta.grad.abs().sum() > 0


def on(config, folder):
    language = dict(config["module"], language=dict(path=folder))
    return dict(config, module=language, lora=dict(r=4, target_modules=["to_q"]), train_tokens=["<image>"])


@pytest.mark.parametrize("tiny_v2", ["gpt_neox"], indirect=True)
def test_the_embedding_is_found_under_its_familys_name(config, tiny_v2):
    names = [name for name in trained(MODELS.build(on(config, tiny_v2))) if "lora_" not in name]
    assert len(names) == 1 and "embed_in" in names[0]


@pytest.mark.parametrize("tiny_v2", ["mpt"], indirect=True)
def test_rows_of_a_tied_embedding_are_refused(config, tiny_v2):
    with pytest.raises(ValueError, match="tied to its output head"):
        MODELS.build(on(config, tiny_v2))


def test_unknown_token_is_an_error(config):
    with pytest.raises(ValueError, match="does not know \\['<video>'\\]"):
        MODELS.build(dict(config, train_tokens=["<video>"]))


def test_fields_of_peft_are_passed_on(config):
    model = MODELS.build(dict(config, lora=dict(LORA, use_dora=True)))
    assert any("lora_magnitude_vector" in name for name in trained(model))


def test_whole_parts_beside_lora_are_refused(config):
    for field in (dict(modules_to_save=["perceiver"]), dict(task_type="CAUSAL_LM"), dict(inference_mode=True)):
        (name,) = field
        with pytest.raises(ValueError, match=rf"lora.{name}=.* is not supported"):
            MODELS.build(dict(config, module=dict(type="not built"), lora=dict(LORA, **field)))
