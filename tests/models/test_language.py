"""Tokenizers and language models from folders."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, MptConfig, MptForCausalLM, PreTrainedTokenizerFast

from mmgpt.models.language import fit_embeddings, load_language_model
from mmgpt.models.tokenizer import ADDED_TOKENS, load_tokenizer
from mmgpt.models.weights.reader import read_file
from mmgpt.registry import MODELS


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


def as_untied(folder, out, sharded=False, binary=False, equal=False, lacking=False, **settings):
    """A copy of a Llama folder with other tables in its files, and other settings in its config.json."""
    model, tokenizer = load_language_model(folder), load_tokenizer(folder)
    fit_embeddings(model, tokenizer)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"][:-2].clone()
    state["lm_head.weight"] = (
        state["model.embed_tokens.weight"].clone() if equal else state["lm_head.weight"][:-2] * 1.5
    )
    if lacking:
        del state["lm_head.weight"]
    out.mkdir()
    model.config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    settings = {**json.loads((out / "config.json").read_text()), "vocab_size": len(tokenizer) - 2, **settings}
    (out / "config.json").write_text(json.dumps(settings))
    names = sorted(state)
    files = [names[::2], names[1::2]] if sharded else [names]
    for number, part in enumerate(files):
        name = (
            f"{'pytorch_model' if binary else 'model'}{number if sharded else ''}.{'bin' if binary else 'safetensors'}"
        )
        content = {key: state[key].contiguous() for key in part}
        torch.save(content, out / name) if binary else save_file(content, out / name, metadata={"format": "pt"})
        if sharded:
            index = out / f"{'pytorch_model.bin' if binary else 'model.safetensors'}.index.json"
            known = json.loads(index.read_text())["weight_map"] if index.exists() else {}
            index.write_text(json.dumps({"metadata": {}, "weight_map": {**known, **dict.fromkeys(part, name)}}))
    return str(out), state


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize("binary", [False, True], ids=["safetensors", "bin"])
def test_two_tables_of_a_config_that_says_tied_stay_two(tiny_llama, tmp_path, sharded, binary):
    folder, state = as_untied(tiny_llama, tmp_path / "two", sharded, binary, tie_word_embeddings=True)
    tokenizer, model = load_tokenizer(folder), load_language_model(folder)
    ids = torch.arange(20)[None]
    before, known = model(ids).logits, state["lm_head.weight"].shape[0]
    fit_embeddings(model, tokenizer)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert head is not embedding
    assert model.config.tie_word_embeddings is False
    assert torch.equal(head[:known], state["lm_head.weight"])
    assert torch.equal(embedding[:known], state["model.embed_tokens.weight"])
    assert len(head) == len(embedding) == known + 2
    for table in (embedding, head):
        torch.testing.assert_close(table[known:], table[:known].mean(0).expand(2, -1))
    torch.testing.assert_close(model(ids).logits[..., :known], before)


def test_tables_that_are_equal_in_a_config_that_says_tied_are_one(tiny_llama, tmp_path):
    folder, _ = as_untied(tiny_llama, tmp_path / "equal", equal=True, tie_word_embeddings=True)
    model = load_language_model(folder)
    fit_embeddings(model, load_tokenizer(folder))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.tie_word_embeddings is True


def test_one_table_for_a_config_that_says_two_is_refused_with_advice(tiny_llama, tmp_path):
    folder, _ = as_untied(tiny_llama, tmp_path / "one", lacking=True)
    with pytest.raises(
        ValueError, match=r"one: .*missing lm_head.weight.*set tie_word_embeddings to true in config.json"
    ):
        load_language_model(folder)


def test_a_head_with_a_bias_grows_with_the_tokens(tiny_llama, tmp_path):
    sizes = dict(n_embd=32, n_layer=4, n_head=4, rotary_dim=4, n_positions=64, bos_token_id=1, eos_token_id=2)
    tokenizer = load_tokenizer(tiny_llama)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gptj", vocab_size=len(tokenizer) - 3, **sizes))
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    old = model.lm_head.bias.detach().clone()
    loaded = load_language_model(str(tmp_path))
    fit_embeddings(loaded, tokenizer)
    assert torch.equal(loaded.lm_head.bias[:-3], old)
    torch.testing.assert_close(loaded.lm_head.bias[-3:], old.mean().expand(3))
    again = load_language_model(str(tmp_path))
    fit_embeddings(again, tokenizer)
    assert torch.equal(again.lm_head.bias, loaded.lm_head.bias)


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
    assert len(tokenizer) == 6
    assert tokenizer.pad_token == "<PAD>"
    file.write_text(json.dumps(dict(settings, pad_token="<|padding|>")))
    tokenizer = load_tokenizer(str(tmp_path))
    assert len(tokenizer) == 5
    assert tokenizer.pad_token == "<|padding|>"


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


@pytest.mark.parametrize("binary", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_values_that_a_language_model_cannot_hold_are_refused(tiny_llama, tmp_path, binary, sharded):
    folder, state = as_untied(tiny_llama, tmp_path / "out", sharded=sharded, binary=binary)
    name = "model.layers.1.mlp.up_proj.weight"
    file = next(f for f in sorted(Path(folder).glob("*model*")) if f.suffix != ".json" and name in read_file(f))
    content = {key: value.clone() for key, value in read_file(file, mmap=False).items()}  # not mapped: it is written
    for value, words in (
        (content[name].to(torch.int8), f"{Path(folder).name}: {name} holds integers, and the model's weight floats"),
        (content[name] * float("nan"), f"1 tensors hold NaN or infinite values: {name}"),
    ):
        changed = {**content, name: value}
        torch.save(changed, file) if binary else save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=words):
            load_language_model(folder)


def test_an_index_that_names_files_which_are_missing(tiny_llama, tmp_path):
    folder, _ = as_untied(tiny_llama, tmp_path / "out", sharded=True)
    (tmp_path / "out/model1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="index.json names files that are missing: model1.safetensors"):
        load_language_model(folder)
    for text, words in (
        ("{}", "its weight_map does not map tensors"),
        ("[", "is not valid JSON"),
        ('{"weight_map": 3}', "its weight"),
    ):
        (tmp_path / "out/model.safetensors.index.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            load_language_model(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_from_elsewhere_are_refused(tiny_llama, tmp_path, key):
    folder = Path(copytree(tiny_llama, tmp_path / "out"))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, key: "somebody/kernel"}))
    with pytest.raises(ValueError, match=f"{key}='somebody/kernel' names code on the Hub"):
        load_language_model(str(folder))


def test_code_of_a_folder_is_not_run(tiny_llama, tmp_path):
    folder = Path(copytree(tiny_llama, tmp_path / "out"))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    names = {"AutoConfig": "modeling_own.A", "AutoModelForCausalLM": "modeling_own.B"}
    (folder / "config.json").write_text(json.dumps({**settings, "auto_map": names}))
    for options in ({}, dict(pretrained=False)):
        load_language_model(str(folder), **options)
    (folder / "config.json").write_text(json.dumps({**settings, "auto_map": names, "model_type": "own"}))
    with pytest.raises(ValueError, match="transformers has no model of type 'own'.*code from a folder is not run"):
        load_language_model(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_a_language_model_whose_file_is_cut(tiny_llama, tmp_path, length):
    folder = Path(copytree(tiny_llama, tmp_path / "out"))
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:length])
    with pytest.raises(ValueError, match="model.safetensors cannot be read as tensors"):
        load_language_model(str(folder))


def test_an_archive_of_a_language_model_that_is_damaged(tiny_llama, tmp_path):
    folder, state = as_untied(tiny_llama, tmp_path / "out", binary=True)
    file, values = tmp_path / "out/pytorch_model.bin", state["model.layers.0.mlp.up_proj.weight"].numpy().tobytes()
    content = file.read_bytes()
    assert content.count(values) == 1
    file.write_bytes(content.replace(values, values[:-1] + bytes([values[-1] ^ 1])))
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read .*: it is damaged"):
        load_language_model(folder)


@pytest.mark.parametrize("name", [None, "eager", "sdpa"])
def test_the_attention_implementation_is_passed_on(tiny_flamingo_config, name):
    language = {**tiny_flamingo_config["language"], **({"attn_implementation": name} if name else {})}
    model = MODELS.build({**tiny_flamingo_config, "language": language}).language
    assert model.model.config._attn_implementation == model.config._attn_implementation == (name or "sdpa")


@pytest.mark.parametrize(
    "dtype, only_cpu, name", [("bfloat16", True, "packed_eager"), ("bfloat16", False, "sdpa"), (None, True, "sdpa")]
)
def test_low_precision_has_the_unfused_attention_where_there_is_only_a_cpu(
    tiny_llama, monkeypatch, dtype, only_cpu, name
):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: not only_cpu)
    assert load_language_model(tiny_llama, dtype=dtype).config._attn_implementation == name


@pytest.mark.parametrize(
    "family, name, words",
    [
        ("llama", "flex_attention", "choose one of eager, sdpa, flash_attention_2"),
        ("llama", "paged|sdpa", "do not take the masks"),
        ("llama", "someone/kernel", "code on the Hub"),
        ("llama", "sdpaa", "'sdpaa': choose one of"),
        ("mpt", "sdpa", "'sdpa': MptForCausalLM does not support"),
    ],
)
def test_an_attention_implementation_that_cannot_work_is_refused(tmp_path, family, name, words):
    config = dict(model_type=family, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=60)
    with pytest.raises(ValueError, match=f"language.attn_implementation=.*{words}"):
        load_language_model(str(tmp_path), config=config, attn_implementation=name)


@pytest.mark.parametrize("family", ["mamba", "falcon_mamba", "mamba2"])
def test_a_model_of_recurrent_layers_only_is_refused_before_its_weights_are_read(tmp_path, family):
    sizes = dict(hidden_size=32, num_hidden_layers=2, vocab_size=60)
    more = dict(num_heads=4, head_dim=16) if family == "mamba2" else {}
    AutoConfig.for_model(family, **sizes, **more).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"a model of type '{family}' has no KV cache .* recurrent layers only"):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("vocab_size", "362", "vocab_size='362': expected a whole number"),
        ("text_config", 5, "text_config=5: expected an object"),
        ("model_type", ["llama"], r"model_type=\['llama'\]: expected a text"),
        ("hidden_size", "32", r"'hidden_size' expected int, got str \(value: '32'\)"),
        ("eos_token_id", "x", "eos_token_id='x': choose among the ids"),
    ],
)
def test_a_setting_of_a_wrong_type_is_named_with_its_file(tiny_flamingo_config, base_saying, key, value, words):
    folder = base_saying(config={key: value})
    with pytest.raises(ValueError, match=f"base/config.json: .*{words}"):
        MODELS.build({**tiny_flamingo_config, "language": dict(path=folder)})
