"""Tokenizers and language models from folders."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import MptConfig, MptForCausalLM, PreTrainedTokenizerFast

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


def test_rows_beyond_the_tokenizer_are_dropped(tiny_v2):
    tokenizer, model = load_tokenizer(tiny_v2), load_language_model(tiny_v2)
    old = [t.weight.detach().clone() for t in (model.get_input_embeddings(), model.get_output_embeddings())]
    assert len(tokenizer) < old[0].shape[0]
    fit_embeddings(model, tokenizer)
    for table, before in zip((model.get_input_embeddings(), model.get_output_embeddings()), old, strict=True):
        assert torch.equal(table.weight, before[: len(tokenizer)])
    assert model.config.vocab_size == len(tokenizer)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == model.config.tie_word_embeddings


def test_padding_that_the_folder_does_not_name_is_a_token_of_its_own(tmp_path):
    """transformers 5 gives GPT-NeoX's tokenizer <|padding|>, which takes no new row; in 2023 there was none."""
    vocabulary = {"<|endoftext|>": 0, "<|padding|>": 1, "a": 2}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [])))
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    settings = dict(tokenizer_class="GPTNeoXTokenizer", eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    file.write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.convert_tokens_to_ids([*ADDED_TOKENS, tokenizer.pad_token]) == [3, 4, 5]
    assert len(tokenizer) == 6 and tokenizer.pad_token == "<PAD>"
    file.write_text(json.dumps(dict(settings, pad_token="<|padding|>")))
    tokenizer = load_tokenizer(str(tmp_path))
    assert len(tokenizer) == 5 and tokenizer.pad_token == "<|padding|>"


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


@pytest.fixture
def mpt(tmp_path):
    """Folder of a tiny MPT, with the further settings of MosaicML's own config.json."""
    config = MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=20)
    MptForCausalLM(config).save_pretrained(tmp_path)
    change(tmp_path, auto_map={"AutoConfig": "configuration_mpt.MPTConfig"}, init_config={"name": "kaiming_normal_"})
    return tmp_path


def change(folder, attn_config=None, **settings):
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **settings}
    config["attn_config"].update(attn_config or {})
    file.write_text(json.dumps(config))


def test_mpt_is_loaded_as_transformers_has_it(mpt):
    model = load_language_model(str(mpt))
    assert type(model) is MptForCausalLM
    saved = load_file(mpt / "model.safetensors")
    assert torch.equal(model.lm_head.weight, saved["transformer.wte.weight"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (dict(attn_config=dict(qk_ln=True)), "qk_ln=True"),
        (dict(attn_config=dict(alibi_bias_max=16)), "alibi_bias_max=16"),
        (dict(attn_config=dict(alibi=False)), "alibi=False"),
        (dict(logit_scale="inv_sqrt_d_model"), "logit_scale='inv_sqrt_d_model'"),
        (dict(norm_type="rmsnorm"), "norm_type='rmsnorm'"),
        (dict(model_type="mosaic_gpt", attn_qk_ln=True), "'mosaic_gpt' .with attn_qk_ln"),
    ],
)
def test_a_setting_that_transformers_does_not_compute_is_refused(mpt, settings, named):
    change(mpt, **settings)
    for pretrained in (True, False):
        with pytest.raises(ValueError, match=f"{named}.*mpt-7b"):
            load_language_model(str(mpt), pretrained=pretrained)


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"transformer.blocks.0.attn.q_ln.weight": torch.ones(32)}, "unexpected transformer.blocks.0.attn.q_ln.weight"),
        ({"transformer.norm_f.weight": None}, "missing transformer.norm_f.weight"),
        ({"transformer.wte.weight": torch.ones(21, 32)}, r"wte.weight is \(21, 32\), not \(20, 32\)"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(mpt, weights, named):
    file = mpt / "model.safetensors"
    weights = {**load_file(file), **weights}
    save_file({name: w for name, w in weights.items() if w is not None}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{mpt.name}.*{named}"):
        load_language_model(str(mpt))


@pytest.mark.parametrize("tiny_v2", ["gpt_neox"], indirect=True)
def test_buffers_that_older_versions_stored_are_harmless(tiny_v2, tmp_path):
    folder = Path(copytree(tiny_v2, tmp_path / "old"))
    buffers = {"bias": torch.ones(1, 1, 8, 8), "masked_bias": torch.tensor(-1e9), "rotary_emb.inv_freq": torch.ones(1)}
    weights = {f"gpt_neox.layers.0.attention.{name}": value for name, value in buffers.items()}
    file = folder / "model.safetensors"
    save_file({**load_file(file), **weights}, file, metadata={"format": "pt"})
    loaded, expected = load_language_model(str(folder)).state_dict(), load_language_model(tiny_v2).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
