"""The KV cache under either of its names, whatever name the installed transformers uses."""

from functools import partial

import pytest
import torch
from transformers import AutoConfig, DynamicCache, LlamaForCausalLM

from mmgpt.models.gated_lm import GatedCausalLM, GatedCrossAttentionBlock
from mmgpt.models.transformers_names import CACHE, NEW_CACHE, OLD_CACHE, cache_argument
from tests.helpers.published_beams import PublishedBeams
from tests.models.test_gated_lm import FAMILIES, IMAGE, SMALL, batch, gated, greedy, language_model


class LlamaWithOldName(LlamaForCausalLM):
    """A model from elsewhere, written for transformers before 5.24."""

    def forward(self, input_ids=None, past_key_values=None, **kwargs):
        return super().forward(input_ids, **{**kwargs, CACHE: past_key_values})

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, **{**kwargs, CACHE: past_key_values})
        return {**inputs, "past_key_values": inputs.pop(CACHE, None)}


class LlamaWithNewName(LlamaForCausalLM):
    """A model from elsewhere, written for transformers 5.24 and later."""

    def forward(self, input_ids=None, cache=None, **kwargs):
        return super().forward(input_ids, **{**kwargs, CACHE: cache})

    def prepare_inputs_for_generation(self, input_ids, cache=None, **kwargs):
        inputs = super().prepare_inputs_for_generation(input_ids, **{**kwargs, CACHE: cache})
        return {**inputs, "cache": inputs.pop(CACHE, None)}


def foreign(model_class):
    """A GatedCausalLM around a model of one of these two classes."""
    own = gated()
    config = AutoConfig.for_model("llama", **SMALL, max_position_embeddings=64, pad_token_id=0)
    config.bos_token_id, config.eos_token_id = 1, None
    model = GatedCausalLM(
        model_class(config), 16, IMAGE, 2, block=partial(GatedCrossAttentionBlock, dim_head=8, heads=2)
    ).eval()
    model.load_state_dict(own.state_dict())
    return model


def test_names_are_found_in_signatures():
    assert cache_argument(LlamaWithOldName.forward) == OLD_CACHE
    assert cache_argument(LlamaWithNewName.forward) == NEW_CACHE
    assert cache_argument(lambda **kwargs: None) == cache_argument(language_model().forward) == CACHE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", [OLD_CACHE, NEW_CACHE])
def test_a_forward_goes_on_from_a_cache_under_either_name(family, name):
    model = gated(family)
    ids, cache = torch.randint(6, 60, (1, 8)), DynamicCache()
    with torch.no_grad():
        model(ids[:, :5], use_cache=True, **{name: cache})
        assert cache.get_seq_length() == 5
        out = model(ids[:, 5:], torch.ones_like(ids), torch.arange(5, 8)[None], use_cache=True, **{name: cache})
        whole = model(ids, use_cache=False).logits
    torch.testing.assert_close(out.logits, whole[:, 5:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("search", [None, PublishedBeams((1,), CACHE)], ids=["transformers", "published"])
@pytest.mark.parametrize("model_class", [LlamaWithOldName, LlamaWithNewName])
def test_models_with_either_name_generate_alike(model_class, search):
    ids, attention, features, counts = batch()
    arguments = dict(attention_mask=attention, media_features=features, image_counts=counts)
    arguments.update(max_new_tokens=6, do_sample=False, pad_token_id=0)
    model = foreign(model_class)
    assert torch.equal(model.generate(ids, **arguments), greedy(gated(), ids, attention, features, counts, 6))
    arguments.update(num_beams=3, custom_generate=search, eos_token_id=1)
    assert torch.equal(model.generate(ids, **arguments), gated().generate(ids, **arguments))
