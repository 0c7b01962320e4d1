"""Reports on language models and image encoders, whose weights are not loaded."""

import json
from pathlib import Path
from shutil import copytree

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from mmgpt.models import OpenCLIPVision, base_report
from mmgpt.models.base_report import describe, encoder_config
from mmgpt.registry import MODELS
from tests.helpers.hub_cache import put_into_cache, use_hub

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if m.role != 'tool' %}<|turn|>{{ m.content }}</s>{% endif %}{% endfor %}"
)


@pytest.fixture
def llama(tiny_llama, tmp_path):
    """A function that gives the tiny Llama's folder with other settings in its files."""

    def change(**files):
        folder = Path(copytree(tiny_llama, tmp_path / "llama"))
        for name, settings in files.items():
            file = folder / f"{name}.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        return folder

    return change


def test_sizes_are_those_of_the_model(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    report = describe(tiny_llama)
    count = sum(parameter.numel() for parameter in model.parameters())
    rows = len(model.get_input_embeddings().weight)
    sizes = report["Language model"]
    assert sizes["family"] == "llama (LlamaForCausalLM)"
    assert sizes["parameters"].startswith(f"{count:,}, {rows * 32:,} of them")
    assert sizes["stored as"] == "float32 (39 tensors)"
    assert sizes["output head"] == "a table of its own"
    assert sizes["layers, width"] == "4 of 32"
    assert sizes["attention heads"] == "4 of 8, with 4 key/value heads"
    assert sizes["vocabulary"] == f"{rows} rows, {rows} tokens"
    assert report["Memory"]["KV cache in bfloat16"] == f"{2 * 2 * 4 * 32 * 1000 / 2**20:.1f} MiB for 1,000 tokens"
    assert report["Chat template"] == {"": "none"}


def test_special_tokens_are_compared_with_the_models_files(llama):
    folder = llama(generation_config=dict(eos_token_id=[2, 5]), config=dict(bos_token_id=7))
    rows = describe(str(folder))["Special tokens"]
    assert rows["start of a text"] == "'<s>' (1); config.json has '<0x04>' (7); 2 files agree"
    assert rows["end of a text"] == "'</s>' (2); 3 files agree"
    assert rows["an answer ends with"].startswith("'</s>' (2), ")
    assert rows["an answer ends with"].endswith(" (5)")


def test_the_roles_and_the_marks_of_a_chat_template(llama):
    folder = llama(tokenizer_config=dict(chat_template=TEMPLATE))
    assert describe(str(folder))["Chat template"] == {
        "roles": "user, assistant",
        "after an answer": "'</s>'",
        "marks": "not tokens, so spelled out: <|turn|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(chat_template="{{ messages }")))
    roles = "it cannot word a question and its answer: unexpected '}'"
    assert describe(str(folder))["Chat template"] == {"roles": roles}


def test_a_text_that_changes_is_shown(llama, monkeypatch):
    folder = llama()
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.normalizer = normalizers.Sequence([normalizers.Lowercase(), raw.normalizer])
    raw.save(str(folder / "tokenizer.json"))
    monkeypatch.setattr(base_report, "ROUND_TRIPS", ("the red circle", "THE circle"))
    assert describe(str(folder))["Tokenizer: text -> tokens -> text"] == {
        "'the red circle'": "3 tokens",
        "'THE circle'": "2 tokens, becomes 'the circle'",
        "'typed </s>'": "10 tokens",
    }


def test_two_tables_in_the_files_of_a_tied_model(llama):
    folder = llama(config=dict(tie_word_embeddings=True))
    assert "the files have lm_head.weight" in describe(str(folder))["Language model"]["output head"]


def test_sliding_windows_and_tied_tables(llama):
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=7, num_attention_heads=4, head_dim=8)
    folder = llama()
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = AutoConfig.for_model(
        "gemma3_text", vocab_size=vocabulary, num_key_value_heads=1, sliding_window=16, **sizes
    )
    (folder / "generation_config.json").unlink()
    AutoModelForCausalLM.from_config(config, dtype="bfloat16").save_pretrained(folder)
    report = describe(str(folder))["Language model"]
    assert report["sliding window"] == "16 tokens, in 6 of 7 layers"
    assert report["output head"] == "the token embedding (tied)"
    assert report["attention heads"] == "4 of 8, with 1 key/value heads"
    assert report["stored as"].startswith("bfloat16 (")


def test_a_hub_id_without_its_weights(llama, tmp_path, monkeypatch):
    folder = llama(config=dict(dtype="float16"))
    (folder / "model.safetensors").unlink()
    put_into_cache(tmp_path / "hub", "owner/llama", folder)
    use_hub(monkeypatch, tmp_path / "hub")
    report = describe("owner/llama")
    assert report["Language model"]["stored as"] == "float16, according to config.json: the weights are not here"
    assert report["Memory"]["training"].endswith("--cfg-options language_model=owner/llama")


def test_an_image_encoder_of_open_clip(tiny_clip, monkeypatch):
    settings = dict(library="open_clip", size=32, mean=(0.5, 0.5, 0.5), fill=None)
    monkeypatch.setattr(OpenCLIPVision, "read_preprocessing", staticmethod(lambda config: settings))
    report = describe(tiny_clip)
    encoder = MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip))
    sizes = report["Image encoder"]
    assert sizes["config"] == f"vision=dict(type='OpenCLIPVision', path={tiny_clip!r})"
    assert sizes["parameters"] == f"{sum(p.numel() for p in encoder.parameters()):,}"
    assert sizes["images"] == "32 x 32"
    assert sizes["features"] == "16 of 32, from the last layer, in a grid of 4 x 4"
    assert sizes["dropped tokens"] == "1 (class, distillation, registers)"
    assert report["Preprocessing"] == dict(library="open_clip", size="32", mean="(0.5, 0.5, 0.5)")


def test_an_image_encoder_of_transformers(tmp_path):
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32)
    config = AutoConfig.for_model("dinov2_with_registers", **sizes, patch_size=8, num_register_tokens=4)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    report = describe(str(tmp_path))["Image encoder"]
    assert report["config"].startswith("vision=dict(type='HFVision', path=")
    assert report["images"] == "32 x 32"
    assert report["features"] == "16 of 32, from the last layer, in a grid of 4 x 4"
    assert report["dropped tokens"] == "5 (class, distillation, registers)"
    assert report["stored as"].startswith("float32 (")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32", dict(type="OpenCLIPVision", model="ViT-B-32")),
        ("resnet18.a1_in1k", dict(type="TimmVision", model="resnet18.a1_in1k")),
    ],
)
def test_an_image_encoder_by_its_name(name, expected):
    assert encoder_config(name, Path(name)) == expected


def test_a_name_that_stands_for_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="'no-such-model' is not a folder .* nor a name that open_clip or timm"):
        describe("no-such-model")
