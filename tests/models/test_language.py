"""Tokenizers and language models from folders."""

import pytest
import torch

from mmgpt.models.language import ADDED_TOKENS, fit_embeddings, load_language_model, load_tokenizer


def test_special_tokens_are_added_in_the_published_order(tiny_llama):
    tokenizer = load_tokenizer(tiny_llama)
    ids = tokenizer.convert_tokens_to_ids([*ADDED_TOKENS, "<PAD>"])
    assert ids == list(range(len(tokenizer) - 3, len(tokenizer)))
    assert tokenizer.pad_token == "<PAD>"
    assert tokenizer("a <image> b", add_special_tokens=False).input_ids.count(ids[1]) == 1


def test_new_rows_are_the_mean_of_the_old_ones_at_every_load(tiny_llama):
    tokenizer = load_tokenizer(tiny_llama)
    models = [load_language_model(tiny_llama) for _ in range(2)]
    known = models[0].get_input_embeddings().weight.shape[0]
    old = models[0].get_input_embeddings().weight.detach().clone()
    for model in models:
        fit_embeddings(model, tokenizer)
        for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            assert table.shape[0] == known + 3
            torch.testing.assert_close(table[known:], table[:known].mean(0).expand(3, -1))
        torch.testing.assert_close(model.get_input_embeddings().weight[:known], old)
    fit_embeddings(models[0], tokenizer)
    assert models[0].get_input_embeddings().weight.shape[0] == known + 3


def test_dtype_and_random_weights(tiny_llama):
    assert load_language_model(tiny_llama, dtype="bfloat16").dtype == torch.bfloat16
    saved, random = load_language_model(tiny_llama), load_language_model(tiny_llama, pretrained=False)
    assert saved.config.num_hidden_layers == random.config.num_hidden_layers
    assert not torch.equal(saved.lm_head.weight, random.lm_head.weight)
    small = dict(model_type="llama", hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    new = load_language_model(tiny_llama, pretrained=False, config=dict(small, vocab_size=7))
    assert new.get_input_embeddings().weight.shape == (7, 16)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json is missing"):
        load_language_model(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_tokenizer(str(tmp_path / "nothing"))
