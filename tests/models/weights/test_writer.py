"""The components of a base, written and loaded again."""

import json

import torch

from mmgpt.models.weights.writer import save_components, save_language, save_vision
from mmgpt.registry import MODELS
from tests.models.test_flamingo import batch
from tests.models.test_language import as_untied


def test_a_saved_base_gives_the_same_logits(model, tiny_flamingo_config, tmp_path):
    save_components(model, str(tmp_path / "flamingo.safetensors"), torch.float32)
    save_language(model, str(tmp_path / "language"), torch.float32)
    config = dict(tiny_flamingo_config, weights=str(tmp_path / "flamingo.safetensors"))
    config["language"] = dict(path=str(tmp_path / "language"))
    torch.manual_seed(4)
    loaded = MODELS.build(config).eval()
    data = batch(model)
    torch.testing.assert_close(loaded(**data), model(**data))


def test_a_language_model_with_decoder_in_its_names_is_saved_under_them(tiny_llama, tiny_flamingo_config, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, OPTForCausalLM

    sizes = dict(hidden_size=32, ffn_dim=64, num_hidden_layers=4, num_attention_heads=4, word_embed_proj_dim=32)
    folder = tmp_path / "opt"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    OPTForCausalLM(OPTConfig(**sizes, vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = MODELS.build(dict(tiny_flamingo_config, language=dict(path=str(folder))))
    save_language(model, str(tmp_path / "saved"), torch.float32)
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info.values())


def test_untied_tables_whose_config_says_tied_are_saved_as_untied(tiny_llama, tiny_flamingo_config, tmp_path):
    folder, _ = as_untied(tiny_llama, tmp_path / "two", tie_word_embeddings=True)
    model = MODELS.build(dict(tiny_flamingo_config, language=dict(path=folder))).eval()
    save_language(model, str(tmp_path / "saved"), torch.float32)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["tie_word_embeddings"] is False
    loaded = MODELS.build(dict(tiny_flamingo_config, language=dict(path=str(tmp_path / "saved")))).eval()
    tables = [
        (m.language.get_input_embeddings().weight, m.language.get_output_embeddings().weight) for m in (model, loaded)
    ]
    assert all(torch.equal(before, after) for before, after in zip(*tables, strict=True))


def test_a_saved_image_encoder_loads_as_an_open_clip_folder(tiny_clip, tmp_path):
    description = json.loads(open(f"{tiny_clip}/open_clip_config.json").read())["model_cfg"]
    (tmp_path / "saved-encoder.json").write_text(json.dumps(description))
    torch.manual_seed(5)
    vision = MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "saved-encoder.json"))).eval()
    save_vision(vision, str(tmp_path / "saved-encoder.json"), str(tmp_path / "vision"), torch.float32)
    loaded = MODELS.build(dict(type="OpenCLIPVision", path=str(tmp_path / "vision"))).eval()
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded(pixels), vision(pixels))
