"""Families of language models under a Flamingo with LoRA: its layers, a step of training, and exported folders.

Images, closed gates and cached answers of the families are in test_gated_lm.py, mixtures of experts in test_experts.py.
"""

from copy import deepcopy
from shutil import copytree

import pytest
import torch
from mmengine.config import Config
from transformers import AutoConfig, AutoModelForCausalLM

from mmgpt.apis import build_model
from mmgpt.apis.export import export, merge
from mmgpt.cli import load_config
from mmgpt.models.language import is_tied
from mmgpt.models.weights.names import component_of
from tests.helpers.chat_pipeline import pipeline
from tests.models.test_flamingo import batch

FEW = dict(num_key_value_heads=2)
EXPERTS = dict(FEW, num_experts_per_tok=2)
TIED = dict(tie_word_embeddings=True)
FAMILIES = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", TIED),
    "mistral": ("mistral", FEW),
    "qwen2, tied": ("qwen2", FEW | TIED),
    "qwen3": ("qwen3", dict(FEW, head_dim=8)),
    "gemma2, tied": ("gemma2", dict(FEW, head_dim=8)),
    "gemma3, tied": ("gemma3_text", dict(FEW, head_dim=8)),
    "gemma3": ("gemma3_text", dict(FEW, head_dim=8, tie_word_embeddings=False)),
    "gpt_neox": ("gpt_neox", {}),
    "phi3": ("phi3", FEW),
    "olmo2": ("olmo2", FEW),
    "granite, tied": ("granite", dict(FEW, logits_scaling=2.0, **TIED)),
    "mixtral": ("mixtral", dict(EXPERTS, num_local_experts=4)),
    "qwen3_moe": ("qwen3_moe", dict(EXPERTS, num_experts=4, moe_intermediate_size=24, head_dim=8)),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny_llama, tiny_flamingo_config, tmp_path_factory):
    """Config and model of LoRA on all linear layers of a tiny language model on the disk, with random updates.

    The base has no Flamingo weights: new resampler and gated blocks are trained in full beside LoRA.
    """
    kind, settings = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family")
    base = copytree(tiny_llama, folder / "base")
    torch.manual_seed(0)
    settings = dict(max_position_embeddings=64, initializer_range=0.2, bos_token_id=1, eos_token_id=2, **settings)
    settings.update(pad_token_id=0)
    settings.update(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=362)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(base)
    module = dict(tiny_flamingo_config, language=dict(path=str(base)))
    # A matrix B of zeros would leave A without a gradient in the first step.
    lora = dict(r=2, lora_alpha=2, target_modules="all-linear", init_lora_weights=False)
    model = dict(type="LoRAModel", module=module, lora=lora, train=["perceiver", "gated"])
    values = dict(model=model, chat_pipeline=pipeline(str(base)))
    Config({**values, "default_scope": "mmgpt"}).dump(folder / "config.py")
    cfg = load_config(folder / "config.py")
    return cfg, build_model(cfg, device="cpu"), folder, request.param.endswith("tied")


def test_all_linear_takes_each_linear_layer_of_the_language_model_but_its_head(family):
    cfg, model, _, tied = family
    base = AutoModelForCausalLM.from_pretrained(cfg.model.module.language.path)
    head = base.get_output_embeddings()
    expected = {n for n, layer in base.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not head}
    plain = {name.removeprefix("language.model.").replace(".decoder.", ".") for name in model.adapted_layers()}
    assert plain == expected
    assert len(expected) >= 8
    assert is_tied(model.module.language) is tied


def test_one_step_moves_every_trained_tensor(family):
    model = deepcopy(family[1]).train()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.01, weight_decay=0.0)
    sum(model(**batch(model), mode="loss").values()).backward()
    optimizer.step()
    assert {component_of(name) for name in trained} == {"LoRA", "perceiver", "gated blocks"}
    assert [name for name, parameter in trained.items() if torch.equal(parameter, before[name])] == []


@torch.no_grad()
def test_exported_and_merged_folders_are_the_model_to_the_bit(family):
    cfg, model, folder, _ = family
    data = batch(model)
    export(cfg, model, folder / "exported")
    exported = build_model(load_config(folder / "exported"), folder / "exported", "cpu")
    assert torch.equal(exported(**data), model(**data))
    merged = deepcopy(model).peft.merge_and_unload()(**data)
    assert not torch.equal(merged, model.module.language(data["input_ids"]).logits)
    assert merge(cfg, deepcopy(model), folder / "merged") < 1e-5
    assert torch.equal(build_model(load_config(folder / "merged"), device="cpu")(**data), merged)
