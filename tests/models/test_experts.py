"""Language models with a mixture of experts in place of the feed-forward layers."""

import pytest
import torch
from transformers import AutoConfig

from mmgpt.models.language import load_language_model
from mmgpt.models.weights.writer import save_language
from mmgpt.registry import MODELS
from tests.models.test_flamingo import batch

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
FEW = dict(num_experts_per_tok=2, num_key_value_heads=2)
DEEPSEEK = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, n_group=2, topk_group=1)
DEEPSEEK.update(q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8)
FAMILIES = {
    "mixtral": dict(FEW, num_local_experts=4),
    "qwen2_moe": dict(FEW, num_experts=4, moe_intermediate_size=24, shared_expert_intermediate_size=24),
    "qwen3_moe": dict(FEW, num_experts=4, moe_intermediate_size=24, head_dim=8),
    "olmoe": dict(FEW, num_experts=4),
    "granitemoe": dict(FEW, num_local_experts=4),
    "gpt_oss": dict(FEW, num_local_experts=4, head_dim=8),
    "deepseek_v2": dict(DEEPSEEK, first_k_dense_replace=1),
    "deepseek_v3": dict(DEEPSEEK, first_k_dense_replace=1),
}


def config_of(family, **more):
    config = dict(SMALL, **FAMILIES[family], max_position_embeddings=64, initializer_range=0.2, **more)
    return dict(model_type=family, **config)


@pytest.fixture(params=FAMILIES)
def model(request, tiny_flamingo_config):
    torch.manual_seed(0)
    language = dict(tiny_flamingo_config["language"], pretrained=False, config=config_of(request.param))
    targets = r".*\.(o_proj|q_proj|q_a_proj|kv_b_proj|to_q|ff\.1)"  # whichever the family has
    module = dict(tiny_flamingo_config, language=language)
    return MODELS.build(dict(type="LoRAModel", module=module, lora=dict(r=4, lora_alpha=4, target_modules=targets)))


def gradients(model):
    model.zero_grad()
    sum(model(**batch(model), mode="loss").values()).backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.requires_grad}


def test_a_mixture_of_experts_is_trained_and_merged(model, tmp_path):
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain = gradients(model.train())
    assert len(plain) >= 12
    assert all(each.any() for each in plain.values())
    model.module.language.gradient_checkpointing_enable(dict(use_reentrant=False))
    checkpointed = gradients(model)
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)
    model.module.language.gradient_checkpointing_disable()
    data = batch(model.eval())
    before = model(**data, mode="tensor")
    other = model(**{**data, "pixels": data["pixels"].flip(0)}, mode="tensor")
    assert not torch.allclose(before[:2], other[:2], atol=1e-3)
    merged = model.peft.merge_and_unload()
    torch.testing.assert_close(merged(**data, mode="tensor"), before, atol=1e-4, rtol=1e-4)
    save_language(merged, str(tmp_path), dtype=None)
    again = load_language_model(str(tmp_path))
    torch.testing.assert_close(again(data["input_ids"]).logits, merged.language(data["input_ids"]).logits)


def test_cached_answers_equal_uncached_ones(model):
    language, data = model.eval().module.language, batch(model)
    features = torch.randn(3, 2, 4, 32)
    asked = dict(attention_mask=data["attention_mask"].flip(1), media_features=features, max_new_tokens=5)
    asked.update(image_counts=data["image_counts"], do_sample=False, pad_token_id=0)
    cached = language.generate(data["input_ids"], **asked)
    assert torch.equal(cached, language.generate(data["input_ids"], **asked, use_cache=False))


def test_the_auxiliary_loss_of_the_router_is_left_out(tiny_flamingo_config):
    def losses(**more):
        torch.manual_seed(0)
        language = dict(tiny_flamingo_config["language"], pretrained=False, config=config_of("mixtral", **more))
        model = MODELS.build(dict(tiny_flamingo_config, language=language)).eval()
        return model(**batch(model), mode="loss")

    assert losses() == losses(output_router_logits=True, router_aux_loss_coef=10.0)


def test_a_model_with_a_cache_of_its_own_is_refused_before_its_weights_are_read(tmp_path):
    small = dict(SMALL, num_key_value_heads=2, head_dim=8, num_local_experts=4)
    AutoConfig.for_model("minimax", **small).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="MiniMaxForCausalLM keeps a cache of its own"):
        load_language_model(str(tmp_path))
