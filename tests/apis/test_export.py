"""Exported folders: their files, loading, and refused ones."""

import argparse
import json
from copy import deepcopy
from shutil import copy, copytree, rmtree

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer, CLIPImageProcessorPil

from mmgpt.apis import Chat, Conversation, MMGPTInferencer, build_model
from mmgpt.apis.build import find_config
from mmgpt.apis.export import export, merge, preprocessor_config
from mmgpt.apis.precision import for_serving
from mmgpt.cli import load_config
from mmgpt.cli.description import write_description
from mmgpt.cli.model_options import add_model_options, chat_arguments
from mmgpt.models import LoRAModel, generation
from mmgpt.models.weights.reader import read_weights
from mmgpt.models.weights.trainable import trainable_state
from mmgpt.models.weights.writer import save_components, save_language, save_mmgpt_lora
from mmgpt.registry import MODELS, TRANSFORMS
from tests.helpers.hub_cache import put_into_cache, use_hub
from tests.helpers.tolerances import assert_close
from tests.models.test_flamingo import batch
from tests.models.test_language import as_untied

LORA = dict(r=2, lora_alpha=4, target_modules=["q_proj", "to_q", "ff.1"], exclude_modules=r"(vision|perceiver)\..*")


@pytest.fixture
def experiment(tiny_llama, tiny_clip, tiny_flamingo_config, tmp_path):
    """A function that gives config and model with random, tuned weights; arguments change the LoRAModel's config."""

    def make(**changes):
        vision = dict(type="OpenCLIPVision", path="${vision_model}")
        flamingo = {**tiny_flamingo_config, "vision": vision, "language": dict(path="${language_model}")}
        values = dict(
            language_model=tiny_llama,
            vision_model=tiny_clip,
            model={"type": "LoRAModel", "module": flamingo, "lora": LORA, **changes},
            chat_pipeline=[
                dict(type="PrepareImages", size=32, mean=[0.1, 0.2, 0.3], std=[0.4] * 3),
                dict(type="FormatPrompt", template="short", open_last=True),
                dict(type="TokenizeSegments", tokenizer="${language_model}", max_length=128),
            ],
            default_scope="mmgpt",
        )
        Config(values).dump(tmp_path / "experiment.py")
        cfg = load_config(tmp_path / "experiment.py")
        torch.manual_seed(1)
        model = build_model(cfg, device="cpu")
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        return cfg, model

    return make


@torch.no_grad()
def logits(model, data):
    return model(**data)


def test_an_exported_folder_names_the_hub_id_of_its_base(experiment, tiny_llama, tmp_path, monkeypatch):
    put_into_cache(tmp_path / "hub", "owner/llama", tiny_llama)
    use_hub(monkeypatch, tmp_path / "hub")
    cfg, _ = experiment()
    cfg = load_config(cfg.filename, dict(language_model="owner/llama"))
    model = build_model(cfg, device="cpu")
    export(cfg, model, tmp_path / "exported")
    description = json.loads((tmp_path / "exported" / "mmgpt.json").read_text())
    assert description["language_model"] == "owner/llama"
    assert "snapshots" not in json.dumps(description)
    loaded = build_model(load_config(tmp_path / "exported"), tmp_path / "exported", device="cpu")
    assert torch.equal(loaded.flamingo.language.model.lm_head.weight, model.flamingo.language.model.lm_head.weight)


TARGETS = ["query_key_value", "dense_h_to_4h", "to_q", "ff.1"]
# Every way of LoRA that is not refused, on a GPT-NeoX, whose layers have biases and whose tables are two.
VARIANTS = {
    "plain": {},
    "gaussian": dict(init_lora_weights="gaussian", lora_dropout=0.1),
    "random": dict(init_lora_weights=False),
    "orthogonal": dict(init_lora_weights="orthogonal"),
    "mica": dict(init_lora_weights="mica"),
    "dora": dict(use_dora=True),
    "rslora": dict(use_rslora=True),
    "biases": dict(bias="lora_only"),
    "lora_bias": dict(lora_bias=True, target_modules=TARGETS[:2]),
    "velora": dict(velora_config=dict(num_groups=4, init_type="random")),
    "bdlora": dict(use_bdlora=dict(target_modules_bd_a=TARGETS[:2], target_modules_bd_b=TARGETS[2:], nblocks=2)),
    "patterns": dict(rank_pattern={"to_q": 1}, alpha_pattern={"dense_h_to_4h": 3}),
    "layers": dict(layers_to_transform=[1, 2], layers_pattern="layers"),
    "parameters": dict(target_modules=["to_q"], target_parameters=["query_key_value.weight"]),
    "head": dict(target_modules=["query_key_value", "lm_head"], use_rslora=True),
    "embedding": dict(target_modules=["to_q", "embed_in"]),
    "regex": dict(target_modules=r".*\.(to_q|dense)"),
    "all-linear": dict(target_modules="all-linear", bias="lora_only"),
    "vision": dict(target_modules=["to_q", "c_fc", "conv1"], exclude_modules=None),
    "perceiver": dict(target_modules=["to_q"], exclude_modules=None),
    "tokens": dict(train_tokens=["<image>"]),
    "in full": dict(target_modules="all-linear", train=["vision", "perceiver", "gated"], train_tokens=["<image>"]),
}
# Those of which MultiModal-GPT's layout has a word for all that they change.
PUBLISHED = ("plain", "gaussian", "random", "orthogonal", "mica", "layers", "regex")


@pytest.fixture
def trained(experiment, tiny_flamingo_config, tmp_path):
    """A function that gives config and model of a base with files for all parts, after two steps of training."""

    def make(folder, lora, train_tokens=None, train=None):
        lora = {"r": 2, "lora_alpha": 4, "target_modules": TARGETS, "exclude_modules": LORA["exclude_modules"], **lora}
        base = MODELS.build({**tiny_flamingo_config, "language": dict(path=folder)})
        save_components(base, str(tmp_path / "parts.safetensors"), dtype=None)
        cfg, _ = experiment()
        cfg.model = dict(
            type="LoRAModel",
            module={**cfg.model.module, "weights": str(tmp_path / "parts.safetensors"), "language": dict(path=folder)},
            lora=lora,
            train_tokens=train_tokens,
            train=train,
        )
        cfg.language_model = folder
        torch.manual_seed(1)
        model = build_model(cfg, device="cpu").train()
        data = batch(model)
        untuned = logits(base.eval(), data)
        if lora.get("init_lora_weights", True):
            torch.testing.assert_close(logits(model.eval(), data), untuned)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            sum(model.train()(**data, mode="loss").values()).backward()
            optimizer.step()
        tuned = logits(model.eval(), data)
        assert (tuned - untuned).abs().max() > 0.1
        if not train:
            with model.disabled():
                torch.testing.assert_close(logits(model, data), untuned)
        return cfg, model, data, tuned

    return make


@pytest.mark.parametrize("tiny_v2", ["gpt_neox"], indirect=True)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_of_lora_is_the_same_model_in_every_file(trained, tiny_v2, tmp_path, name):
    variant = dict(VARIANTS[name])
    added = {key: variant.pop(key) for key in ("train_tokens", "train") if key in variant}
    cfg, model, data, tuned = trained(tiny_v2, lora=variant, **added)
    state = trainable_state(model)
    assert all(key in state for key in model.state_dict() if ".lora_" in key)
    torch.save(dict(state_dict=state, meta={}), tmp_path / "latest.pth")
    files = {"checkpoint": tmp_path / "latest.pth", "export": tmp_path / "out"}
    export(cfg, model, tmp_path / "out")
    if name in PUBLISHED:
        save_mmgpt_lora(model, str(tmp_path / "final_weights.pt"))
        files["published"] = tmp_path / "final_weights.pt"
    else:
        with pytest.raises(ValueError, match="MultiModal-GPT's layout holds"):
            save_mmgpt_lora(model, str(tmp_path / "final_weights.pt"))
    for number, (kind, file) in enumerate(files.items()):
        torch.manual_seed(number + 2)
        config = load_config(file) if kind == "export" else cfg
        loaded = build_model(config, file, "cpu")
        assert torch.equal(logits(loaded, data), tuned), kind
        served = for_serving(loaded)
        assert not isinstance(served, LoRAModel)
        torch.testing.assert_close(logits(served, data), tuned, atol=1e-4, rtol=1e-4)
    assert merge(cfg, model, tmp_path / "merged", bound=1e-4) < 1e-4
    torch.manual_seed(9)
    merged = build_model(load_config(tmp_path / "merged"), device="cpu")
    torch.testing.assert_close(logits(merged, data), tuned, atol=1e-4, rtol=1e-4)


def test_an_update_with_a_bias_of_a_layer_without_one_is_not_merged(trained, tiny_llama, tmp_path):
    cfg, model, data, tuned = trained(tiny_llama, lora=dict(target_modules=["q_proj", "ff.1"], lora_bias=True))
    export(cfg, model, tmp_path / "out")
    loaded = build_model(load_config(tmp_path / "out"), tmp_path / "out", "cpu")
    assert torch.equal(logits(loaded, data), tuned)
    assert isinstance(for_serving(loaded), LoRAModel)
    assert torch.equal(logits(loaded, data), tuned)
    with pytest.raises(ValueError, match=r"lora_bias=True: language.*q_proj \(6 in all\) has no bias .* export"):
        merge(cfg, model, tmp_path / "merged", bound=1.0)
    assert not (tmp_path / "merged").exists()
    assert torch.equal(logits(model, data), tuned)


def test_a_base_of_two_tables_whose_config_says_tied_is_merged_as_it_is(trained, tiny_llama, tmp_path):
    folder, _ = as_untied(tiny_llama, tmp_path / "two", tie_word_embeddings=True)
    cfg, model, data, tuned = trained(folder, lora=dict(target_modules=["q_proj", "lm_head", "embed_tokens"]))
    assert merge(cfg, model, tmp_path / "merged", bound=1e-4) < 1e-4
    merged = build_model(load_config(tmp_path / "merged"), device="cpu")
    torch.testing.assert_close(logits(merged, data), tuned, atol=1e-4, rtol=1e-4)


def test_merge_compares_the_model_with_the_written_files(experiment, tmp_path, monkeypatch):
    """A tensor that the files lack is a difference, although the model in memory is right."""
    cfg, model = experiment()

    def lossy(model, *arguments, **options):
        model.language.model.get_output_embeddings().weight.data[7] += 1
        return save_language(model, *arguments, **options)

    monkeypatch.setattr("mmgpt.apis.export.save_language", lossy)
    with pytest.raises(ValueError, match="merged, a logit differs by .* of the largest logit, .* bound of 1.00e-04"):
        merge(cfg, model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.py"]


@pytest.mark.parametrize("change", [dict(use_rslora=True), dict(alpha_pattern={"to_q": 1})], ids=["rslora", "alphas"])
def test_another_scale_is_refused(experiment, tmp_path, change):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    cfg.model.lora.update(change)
    with pytest.raises(ValueError, match="was trained with (use_rslora=False|alpha_pattern={}), this config has lora."):
        build_model(cfg, tmp_path / "out", "cpu")


def answer(chat):
    return chat.ask(chat.start(), "what is the shape")


@pytest.mark.parametrize(
    "changes",
    [{}, dict(lora=dict(LORA, use_dora=True)), dict(train_tokens=["<image>"])],
    ids=["LoRA", "DoRA", "tokens"],
)
def test_a_folder_loads_as_it_was(experiment, tmp_path, changes):
    cfg, model = experiment(**changes)
    export(cfg, model, tmp_path / "out")
    again = build_model(load_config(tmp_path / "out"), tmp_path / "out", "cpu")
    before, after = trainable_state(model), trainable_state(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list(tmp_path.glob("*.part"))


def test_a_model_of_tiles_answers_as_before_from_both_folders(experiment, tmp_path):
    cfg, _ = experiment()
    cfg.model.module.perceiver.max_tiles = 4
    cfg.model.train = ["perceiver"]
    cfg.chat_pipeline[0].tiles = dict(max=4)
    torch.manual_seed(1)
    model = build_model(cfg, device="cpu")
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    chat = Chat(deepcopy(model), [*map(TRANSFORMS.build, cfg.chat_pipeline)])
    inputs = chat.prepare(Conversation([]).with_question("what is it", [wide]))
    assert inputs["tile_ids"].tolist() == [[[0, 5, 6, 7]]]
    expected = model(**inputs, mode="tensor")
    export(cfg, model, tmp_path / "out")
    merge(cfg, deepcopy(model), tmp_path / "merged", bound=1e-4)
    for folder in (tmp_path / "out", tmp_path / "merged"):
        assert not (folder / "preprocessor_config.json").exists()
        torch.manual_seed(1)  # the gated blocks of this experiment are in no file
        again = by_chat(folder)
        assert_close(
            again.model(**again.prepare(Conversation([]).with_question("what is it", [wide])), mode="tensor"), expected
        )


def test_an_empty_description_of_the_adapter_is_an_error(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    (tmp_path / "out" / "adapter" / "adapter_config.json").write_text("")
    with pytest.raises(ValueError, match="out/adapter/adapter_config.json is not valid JSON: it is empty"):
        build_model(cfg, tmp_path / "out", "cpu")


def test_a_model_without_lora_is_exported_too(experiment, tmp_path):
    cfg, model = experiment()
    cfg.model = {**cfg.model.module, "frozen": ["vision", "language"]}
    plain = build_model(cfg, device="cpu")
    export(cfg, plain, tmp_path / "out")
    again = build_model(load_config(tmp_path / "out"), tmp_path / "out", "cpu")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in trainable_state(plain).items())
    export(load_config(tmp_path / "experiment.py"), model, tmp_path / "tuned")
    with pytest.raises(ValueError, match="tuned holds LoRA weights, but the model of this config has no LoRA"):
        build_model(cfg, tmp_path / "tuned", "cpu")


@pytest.mark.parametrize(
    "changes",
    [{}, dict(train=["perceiver", "gated"], lora=dict(r=2, target_modules="all-linear"))],
    ids=["LoRA", "components in float32"],
)
def test_a_merged_bfloat16_model_is_the_one_that_was_compared(experiment, tmp_path, tiny_llama, changes):
    cfg, _ = experiment(**changes)
    cfg.model.module.language = dict(path=tiny_llama, dtype="bfloat16")
    torch.manual_seed(1)
    model = build_model(cfg, device="cpu")
    expected = deepcopy(model).peft.merge_and_unload().state_dict()
    assert merge(cfg, model, tmp_path / "out") < 0.05
    again = build_model(load_config(tmp_path / "out"), device="cpu").state_dict()
    assert expected.keys() == again.keys()
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_the_bound_of_a_merged_model_is_relative_to_its_logits(experiment, tmp_path, monkeypatch):
    """The models are not in memory at once."""
    cfg, model = experiment()
    head, built = model.module.language.model.get_output_embeddings(), []
    head.weight.data *= 1e4

    def build(*arguments, **options):
        built.append({p.device.type for p in model.parameters()})
        return build_model(*arguments, **options)

    monkeypatch.setattr("mmgpt.apis.export.build_model", build)
    assert merge(cfg, model, tmp_path / "out", bound=1e-5) < 1e-5
    assert built == [{"meta"}]


def test_description_of_an_exported_folder(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    description = json.loads((tmp_path / "out" / "mmgpt.json").read_text())
    assert description["language_model"] == cfg.language_model
    assert (
        description["model"]["module"]["language"]["path"]
        == description["chat_pipeline"][2]["tokenizer"]
        == "${language_model}"
    )
    images = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert images["crop_size"] == {"height": 32, "width": 32}
    assert images["image_mean"] == [0.1, 0.2, 0.3]
    adapter = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (2, 4)
    assert not (tmp_path / "out" / "trained.safetensors").exists()


def test_one_call_and_a_moved_base(experiment, tmp_path, tiny_llama):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    options = {"language_model": tiny_llama}
    chat = Chat.from_config(tmp_path / "out", device="cpu", options=options, merge=False)
    assert isinstance(chat.model, LoRAModel)
    merged = Chat.from_config(tmp_path / "out", device="cpu", options=options)
    assert not isinstance(merged.model, LoRAModel)
    assert answer(merged) == answer(chat)
    assert find_config(tmp_path / "out") == (tmp_path / "out", tmp_path / "out")
    assert find_config("some/config.py")[1] is None


def test_a_merged_folder_needs_no_adapter(experiment, tmp_path):
    cfg, model = experiment()
    merge(cfg, model, tmp_path / "out", bound=1e-4)
    chat = Chat.from_config(tmp_path / "out", device="cpu")
    assert not any("lora" in name for name in chat.model.state_dict())
    assert chat.model.language.model.config.name_or_path == str(tmp_path / "out" / "language")
    assert find_config(tmp_path / "out")[1] is None


def test_a_base_without_a_start_that_has_an_image_token_first(experiment, tmp_path, tiny_llama):
    cfg, _ = experiment()
    base = copytree(tiny_llama, tmp_path / "base")
    state, letters = json.loads((base / "tokenizer.json").read_text()), {}
    for token, i in {"<image>": 0, **{token: i + 1 for token, i in state["model"]["vocab"].items()}}.items():
        letters[token] = i
    state["model"]["vocab"], state["added_tokens"] = letters, []
    (base / "tokenizer.json").write_text(json.dumps(state))
    (base / "tokenizer_config.json").write_text(json.dumps(dict(bos_token=None, eos_token="</s>", unk_token="<unk>")))
    cfg.model.module.language.path = cfg.chat_pipeline[2].tokenizer = str(base)
    model = build_model(cfg, device="cpu")
    assert model.tokenizer.convert_tokens_to_ids("<image>") == 0
    assert model.tokenizer.bos_token is None
    merge(cfg, model, tmp_path / "out", bound=1e-4)
    again = build_model(load_config(tmp_path / "out"), device="cpu")
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert again.tokenizer.bos_token is None


def test_a_base_with_another_tokenizer_is_refused(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    model.tokenizer.add_tokens(["extra"])
    model.tokenizer.save_pretrained(tmp_path / "out" / "tokenizer")
    with pytest.raises(ValueError, match="out was exported with another tokenizer .*extra"):
        Chat.from_config(tmp_path / "out", device="cpu")
    rmtree(tmp_path / "out" / "tokenizer")
    with pytest.raises(FileNotFoundError, match="no folder .*out/tokenizer' with a tokenizer"):
        Chat.from_config(tmp_path / "out", device="cpu")


def test_other_lora_settings_are_refused(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    cfg.model.lora.lora_alpha = 2
    with pytest.raises(ValueError, match="was trained with lora_alpha=4, this config has lora.lora_alpha=2"):
        build_model(cfg, tmp_path / "out", "cpu")


def test_models_that_cannot_be_exported(experiment, tmp_path):
    cfg, model = experiment()
    with pytest.raises(ValueError, match="a Flamingo has no LoRA updates to merge"):
        merge(cfg, model.module, tmp_path / "out", 1.0)
    with pytest.raises(ValueError, match="exists already"):
        export(cfg, model, tmp_path)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        export(cfg, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="has no mmgpt.json"):
        find_config(tmp_path)


VICUNA = dict(bos_token_id=0, eos_token_id=1, pad_token_id=0, max_length=4096, temperature=0.9, top_p=0.6)


@pytest.mark.parametrize("end_token", [None, "<|endofchunk|>"])
def test_a_merged_folder_names_the_tokens_it_is_used_with(
    experiment, base_saying, tmp_path, library_warnings, monkeypatch, end_token
):
    """The base's own settings stay, as far as they are valid: with these, transformers refuses to write a folder."""
    cfg, _ = experiment()
    cfg.language_model = cfg.model.module.language.path = base_saying(VICUNA, dict(eos_token_id=1, pad_token_id=-1))
    cfg.model.module.generation = dict(max_new_tokens=4, end_token=end_token)
    torch.manual_seed(1)
    model = build_model(cfg, device="cpu")
    merge(cfg, model, tmp_path / "out", bound=1e-4)
    library_warnings.clear()

    folder = tmp_path / "out" / "language"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chunk, pad = tokenizer.convert_tokens_to_ids(["<|endofchunk|>", "<PAD>"])
    ends = [2, 1, chunk] if end_token else [2, 1]
    ids = dict(bos_token_id=1, eos_token_id=ends, pad_token_id=pad)
    for name, rest in {"config.json": {}, "generation_config.json": dict(max_length=4096)}.items():
        settings = json.loads((folder / name).read_text())
        assert {**settings, **ids, **rest} == settings
        assert not {"temperature", "top_p"} & set(settings)
    # Other programs find the ends, too.
    plain = AutoModelForCausalLM.from_pretrained(folder)
    plain.save_pretrained(tmp_path / "again")
    assert library_warnings == []
    for end in ends:
        saying = dict(sequence_bias=[[[end], 1000.0]], max_new_tokens=4)
        prompt = torch.tensor([[1, 300, 301]])
        assert plain.generate(prompt, attention_mask=torch.ones_like(prompt), **saying).shape == (1, 4)
    # And so does mmgpt, which has nothing to warn of there.
    warned = []
    library_warnings.clear()
    monkeypatch.setattr(generation, "print_log", lambda text, *_: warned.append(text))
    again = build_model(load_config(tmp_path / "out"), device="cpu")
    assert again.language.ends == ends
    assert again.settings_in_force() == model.settings_in_force()
    assert warned == library_warnings == []


def test_a_base_whose_answers_end_otherwise_is_refused(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    model.tokenizer.eos_token = "<s>"
    model.tokenizer.save_pretrained(tmp_path / "out" / "tokenizer")
    with pytest.raises(ValueError, match="out was exported with another tokenizer: .* with '<s>', .*'</s>' now"):
        Chat.from_config(tmp_path / "out", device="cpu")


def changed_json(file, **values):
    content = json.loads(file.read_text())
    content.update(values)
    file.write_text(json.dumps(content))


def by_chat(folder, **options):
    return Chat.from_config(folder, device="cpu", **options)


def by_inferencer(folder, **options):
    return MMGPTInferencer(folder, device="cpu", **options).chat


def by_front(folder, trust=False):
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    args = parser.parse_args([str(folder), "--device", "cpu", *(["--trust"] if trust else [])])
    return Chat.from_config(**chat_arguments(args))


WAYS = pytest.mark.parametrize("way", [by_chat, by_inferencer, by_front])


@WAYS
@pytest.mark.parametrize("merged", [False, True], ids=["exported", "merged"])
def test_no_code_in_a_folder_is_run(experiment, tmp_path, way, merged):
    cfg, model = experiment()
    out, marker = tmp_path / "out", tmp_path / "marker"
    merge(cfg, model, out, bound=1e-4) if merged else export(cfg, model, out)
    (out / "config.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nmodel = {{}}")
    assert answer(way(out)) == answer(way(out))
    described = json.loads((out / "mmgpt.json").read_text())["model"]
    (described if merged else described["module"])["vision"] = dict(type="os.mkdir", path=str(marker))
    changed_json(out / "mmgpt.json", model=described)
    with pytest.raises(ValueError, match="vision.type='os.mkdir' is not one of .*--trust"):
        way(out)
    (out / "mmgpt.json").unlink()
    with pytest.raises(ValueError, match="config.py is a program, .* is not run: --trust"):
        way(out)
    assert not marker.exists()


@WAYS
def test_a_custom_encoder_is_loaded_if_trusted(experiment, tmp_path, way, monkeypatch, capsys):
    (tmp_path / "encoder_of_ours.py").write_text(
        "from mmgpt.models import OpenCLIPVision\nfrom mmgpt.registry import MODELS\n\n\n"
        "@MODELS.register_module(force=True)\nclass EncoderOfOurs(OpenCLIPVision):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import encoder_of_ours  # noqa: F401

    cfg, _ = experiment()
    cfg.model.module.vision.type = "EncoderOfOurs"
    cfg.custom_imports = dict(imports=["encoder_of_ours"])
    export(cfg, build_model(cfg, device="cpu"), tmp_path / "out")
    with pytest.raises(ValueError, match="type='EncoderOfOurs' is not one of .* import of encoder_of_ours"):
        way(tmp_path / "out")
    assert "is trusted" not in capsys.readouterr().err
    assert answer(way(tmp_path / "out", trust=True)) is not None
    assert "is trusted: model.module.vision.type='EncoderOfOurs'" in capsys.readouterr().err


def test_folders_of_an_earlier_release_load_as_before(experiment, tmp_path, monkeypatch):
    """A config.py as `Config.dump` wrote it, with MMEngine's name of its own folder in merged ones."""
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    expected = answer(by_chat(tmp_path / "out"))
    merge(cfg, model, tmp_path / "merged", bound=1e-4)
    for folder in ("out", "merged"):
        description = tmp_path / folder / "mmgpt.json"
        content = json.loads(description.read_text().replace("${here}", "{{ fileDirname }}"))
        description.unlink()
        settings = {key: value for key, value in content.items() if key not in ("format", "files")}
        Config({**settings, "default_scope": "mmgpt"}).dump(tmp_path / folder / "config.py")
    assert answer(by_chat(tmp_path / "out")) == expected
    assert by_chat(tmp_path / "merged").model.language.model.config.name_or_path == str(tmp_path / "merged/language")
    (tmp_path / "out/adapter/adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="without it, the model would answer as before tuning"):
        by_chat(tmp_path / "out")


@pytest.mark.parametrize("way", [by_chat, lambda folder: read_weights(folder)], ids=["chat", "checkpoint"])
def test_a_folder_without_its_adapter_does_not_answer(experiment, tmp_path, way):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    adapter = tmp_path / "out/adapter/adapter_model.safetensors"
    content = adapter.read_bytes()
    adapter.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    with pytest.raises(ValueError, match="adapter_model.safetensors is not the file that mmgpt.json was written with"):
        way(tmp_path / "out")
    adapter.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"has {len(content) - 1} bytes, and {len(content)} when it was written"):
        way(tmp_path / "out")
    adapter.unlink()
    with pytest.raises(FileNotFoundError, match="adapter_model.safetensors, which mmgpt.json names, is missing"):
        way(tmp_path / "out")


def test_a_merged_folder_without_one_of_its_files_is_refused(experiment, tmp_path):
    cfg, model = experiment()
    merge(cfg, model, tmp_path / "out", bound=1e-4)
    files = json.loads((tmp_path / "out/mmgpt.json").read_text())["files"]
    assert sorted(files) == ["flamingo.safetensors", "language/model.safetensors"]
    for name in files:
        (tmp_path / "out" / name).rename(tmp_path / "aside")
        with pytest.raises(FileNotFoundError, match=f"{name}, which mmgpt.json names, is missing"):
            by_chat(tmp_path / "out")
        (tmp_path / "aside").rename(tmp_path / "out" / name)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(r=8), "trained with lora_r=8, this config has lora.r=2"),
        (dict(lora_alpha=8), "trained with lora_alpha=8, this config has lora.lora_alpha=4"),
        (dict(use_rslora=True), "trained with use_rslora=True, this config has lora.use_rslora=False"),
        (
            dict(alpha_pattern={"to_q": 1}),
            "trained with alpha_pattern={'to_q': 1}, this config has lora.alpha_pattern={}",
        ),
        (
            dict(target_modules=["q_proj"]),
            r"trained with target_modules=\['q_proj'\], this config has \['ff.1', 'q_proj'",
        ),
        (dict(exclude_modules="nothing"), "trained with exclude_modules=nothing, this config has "),
        (dict(target_modules=5), "names no layers"),
        (dict(target_modules="("), "names no layers"),
        (dict(lora_alpha=None), "trained with lora_alpha=None, this config has lora.lora_alpha=4"),
    ],
)
def test_an_adapter_that_contradicts_the_description_is_refused(experiment, tmp_path, change, words):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    changed_json(tmp_path / "out/adapter/adapter_config.json", **change)
    with pytest.raises(ValueError, match=words):
        by_chat(tmp_path / "out")


@pytest.mark.parametrize(
    "text, words", [("", "is not valid JSON"), ("{}", "lacks 'r'"), ("[]", "holds a list, not a JSON object")]
)
def test_an_adapter_without_a_valid_config_is_refused(experiment, tmp_path, text, words):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    file = tmp_path / "out/adapter/adapter_config.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"adapter_config.json:? {words}"):
        by_chat(tmp_path / "out")
    file.unlink()
    with pytest.raises(FileNotFoundError, match="adapter_config.json is missing"):
        by_chat(tmp_path / "out")


def test_a_tensor_that_is_in_both_files_of_a_folder(experiment, tmp_path):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    copy(tmp_path / "out/adapter/adapter_model.safetensors", tmp_path / "out/trained.safetensors")
    with pytest.raises(ValueError, match="trained.safetensors does not belong to the folder"):
        by_chat(tmp_path / "out")
    content = json.loads((tmp_path / "out/mmgpt.json").read_text())
    values = {key: value for key, value in content.items() if key not in ("format", "files")}
    write_description(tmp_path / "out", values, ["adapter/adapter_model.safetensors", "trained.safetensors"])
    with pytest.raises(ValueError, match=r"both hold base_model.model.language.* \(\d+ such tensors\)"):
        by_chat(tmp_path / "out")


def test_an_encoder_of_timm_and_its_own_preprocessing_in_exported_and_merged_folders(
    experiment, tiny_flamingo_config, tiny_timm, tmp_path
):
    vision = dict(type="TimmVision", path=tiny_timm)
    cfg, model = experiment(module=dict(tiny_flamingo_config, vision=vision, language=dict(path="${language_model}")))
    cfg.chat_pipeline[0] = dict(type="PrepareImages", preprocessing=vision)
    export(cfg, model, tmp_path / "out")
    # The folder has the settings themselves, whatever becomes of the encoder's.
    step = json.loads((tmp_path / "out/mmgpt.json").read_text())["chat_pipeline"][0]
    assert step["preprocessing"]["library"] == "timm"
    assert step["preprocessing"]["crop_pct"] == 0.8
    images = json.loads((tmp_path / "out/preprocessor_config.json").read_text())
    assert images["size"] == {"shortest_edge": 40}
    assert images["crop_size"] == {"height": 32, "width": 32}
    expected = answer(by_chat(tmp_path / "out"))
    assert merge(cfg, model, tmp_path / "merged", bound=1e-4) < 1e-4
    assert answer(by_chat(tmp_path / "merged")) == expected


MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def test_the_image_preprocessing_of_transformers_equals_ours_but_for_some_sizes(tmp_path):
    """Levels of 255 between its pixels and ours: none with Pillow and 1 with torchvision, but for some sizes."""
    step = dict(type="PrepareImages", size=224, mean=MEAN, std=STD)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor_config(step)))
    auto = AutoImageProcessor.from_pretrained(tmp_path)
    ours = TRANSFORMS.build(step)
    noise = np.random.default_rng(0)

    def levels(processor, width, height):
        image = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        theirs = processor(images=image, return_tensors="pt")["pixel_values"]
        return ((theirs - ours({"pil": [image]})["pixels"]).abs() * torch.tensor(STD).view(3, 1, 1) * 255).max().item()

    for processor, near in ((auto, 1.01), (CLIPImageProcessorPil.from_pretrained(tmp_path), 0.01)):
        assert "640 x 427" in processor._note
        for width, height in ((640, 480), (224, 224), (300, 300), (500, 375), (225, 224), (226, 224), (228, 224)):
            assert levels(processor, width, height) < near, (width, height)
        for width, height in ((640, 427), (427, 640), (227, 224), (231, 224)):
            assert levels(processor, width, height) > 90, (width, height)


@pytest.mark.parametrize(
    "entry, value, words",
    [
        ("language", 5, "language=5: expected an object"),
        ("weights", 5, "weights=5: expected a text"),
        ("frozen", "vision", "frozen='vision': expected a list"),
        ("generation", [4], r"generation=\[4\]: expected an object"),
    ],
)
def test_an_entry_of_a_wrong_type_is_named(experiment, tmp_path, entry, value, words):
    cfg, model = experiment()
    export(cfg, model, tmp_path / "out")
    description = json.loads((tmp_path / "out" / "mmgpt.json").read_text())["model"]
    description["module"][entry] = value
    changed_json(tmp_path / "out" / "mmgpt.json", model=description)
    with pytest.raises(ValueError, match=f"mmgpt.json: model.module.{words}"):
        by_chat(tmp_path / "out")


def test_a_folder_keeps_the_attention_implementation_but_no_code_for_it(experiment, tmp_path):
    cfg, _ = experiment()
    cfg.model.module.language.attn_implementation = "eager"
    export(cfg, build_model(cfg, device="cpu"), tmp_path / "out")
    assert by_chat(tmp_path / "out").flamingo.language.config._attn_implementation == "eager"
    description = json.loads((tmp_path / "out" / "mmgpt.json").read_text())["model"]
    description["module"]["language"]["attn_implementation"] = "someone/kernel"
    changed_json(tmp_path / "out" / "mmgpt.json", model=description)
    with pytest.raises(ValueError, match="attn_implementation has no place in a description"):
        by_chat(tmp_path / "out")
