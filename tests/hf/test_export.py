"""Export for transformers: other components than the tiny base's, precisions, saving again, refusals."""

from copy import deepcopy

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor, CLIPVisionConfig

from mmgpt.apis import Chat, Conversation, build_model
from mmgpt.cli import load_config
from mmgpt.hf import modeling
from mmgpt.hf.export import export_transformers
from mmgpt.models import PerceiverResampler
from mmgpt.models.tokenizer import IMAGE_TOKEN
from mmgpt.registry import TRANSFORMS
from tests.helpers.tolerances import assert_close
from tests.models.vision.test_timm import save_network

PARTS = ("language_model", "vision_model", "flamingo_weights")


def batch(model, size=32):
    """Two rows with two images and one."""
    generator = torch.Generator().manual_seed(0)
    image = model.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    ids = torch.randint(3, 200, (2, 10), generator=generator)
    ids[0, [1, 6]], ids[1, 4] = image, image
    pixels = torch.randn(2, 2, 3, size, size, generator=generator)
    ours = dict(input_ids=ids, pixels=pixels, image_counts=torch.tensor([2, 1]))
    return ours, dict(input_ids=ids, pixel_values=pixels.flatten(0, 1)[:3])


def opened(cfg, model, tmp_path, **options):
    """Logits of the model and of transformers' model of its folder, and the latter."""
    ours, theirs = batch(model)
    with torch.no_grad():
        logits = model(**ours, mode="tensor")
        export_transformers(cfg, model, tmp_path / "out", merged=True)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", **options)
        return logits, again(**theirs).logits, again


def encoders(tmp_path):
    torch.manual_seed(3)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    config = CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    AutoModel.from_config(config).save_pretrained(tmp_path / "encoder")
    return dict(type="HFVision", path=str(tmp_path / "encoder"))


@pytest.mark.parametrize("final_norm", [False, True])
def test_an_image_encoder_of_transformers(experiment, tmp_path, final_norm):
    cfg, model = experiment(vision={**encoders(tmp_path), "final_norm": final_norm})
    before, after, again = opened(cfg, model, tmp_path)
    assert torch.equal(after, before)
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    assert "open_clip" not in again.config.to_json_string()


def test_language_models_that_do_not_pass_keywords_on(experiment, tiny_v2, tmp_path):
    cfg, model = experiment(language=dict(path=tiny_v2))
    before, after, _ = opened(cfg, model, tmp_path)
    assert torch.equal(after, before)


@pytest.mark.parametrize(
    "family, settings",
    [
        ("gemma2", dict(num_key_value_heads=2, head_dim=8, sliding_window=8, final_logit_softcapping=2.0)),
        ("mixtral", dict(num_key_value_heads=2, num_local_experts=3)),
        ("gpt2", dict(n_embd=32, n_layer=4, n_head=4)),
    ],
)
def test_language_models_with_experts_windows_or_tied_tables(experiment, tiny_llama, tmp_path, family, settings):
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
    sizes = settings if family == "gpt2" else sizes | settings
    config = dict(model_type=family, **sizes, initializer_range=0.3)
    cfg, model = experiment(language=dict(path=tiny_llama, config=config))
    before, after, again = opened(cfg, model, tmp_path)
    assert torch.equal(after, before)
    tables = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert tables == (family != "mixtral")


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("vit_small_patch14_reg4_dinov2", dict(layer=1, final_norm=True)),
        ("vit_small_patch16_dinov3", {}),
        ("swin_tiny_patch4_window7_224", dict(final_norm=True)),
        ("convnext_atto", dict(layer=-2)),
        ("resnet18", {}),
    ],
)
def test_image_encoders_of_timm(experiment, tmp_path, name, arguments):
    network, vision = save_network(name, tmp_path / "encoder")
    cfg, model = experiment(vision={**vision, **arguments})
    ours, theirs = batch(model)
    pixels = torch.randn(3, 3, *model.vision.image_size, generator=torch.Generator().manual_seed(0))
    ours["pixels"] = torch.stack([pixels[:2], torch.stack([pixels[2], pixels[2]])])
    with torch.no_grad():
        before = model(**ours, mode="tensor")
        export_transformers(cfg, model, tmp_path / "out", merged=True)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
        after = again(theirs["input_ids"], pixel_values=pixels).logits
    assert torch.equal(after, before)
    assert again.vision.state_dict().keys() >= model.vision.state_dict().keys()
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("merged", [False, True])
def test_components_trained_in_full_beside_lora_in_bfloat16(experiment, tiny_llama, tmp_path, merged):
    lora = dict(r=2, target_modules="all-linear", init_lora_weights=False)
    tuning = dict(lora=lora, train=["perceiver", "gated"])
    cfg, model = experiment(tuning=tuning, language=dict(path=tiny_llama, dtype="bfloat16", attn_implementation="sdpa"))
    ours, theirs = batch(model)
    with torch.no_grad():
        before = model(**ours, mode="tensor")
        if merged:
            before = deepcopy(model).peft.merge_and_unload()(**ours, mode="tensor")
        export_transformers(cfg, model, tmp_path / "out", merged)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
        after = again(**theirs).logits
    assert torch.equal(after, before)
    assert again.config.float32_components == ["vision", "perceiver", "gated"]
    weights = [weight for name, weight in again.named_parameters() if name.endswith("attn_gate") or ".lora_" in name]
    assert {weight.dtype for weight in weights} == {torch.float32}
    assert again.dtype == torch.bfloat16


def test_beams_of_the_published_code_become_those_of_transformers(experiment, tmp_path):
    cfg, model = experiment(generation=dict(max_new_tokens=4, num_beams=3, beam_scores="text"))
    *_, again = opened(cfg, model, tmp_path)
    assert again.generation_config.num_beams == 3
    assert not hasattr(again.generation_config, "beam_scores")


def test_components_in_float32_beside_a_bfloat16_language_model(experiment, tiny_llama, tmp_path):
    cfg, model = experiment(language=dict(path=tiny_llama, dtype="bfloat16", attn_implementation="sdpa"))
    before, after, again = opened(cfg, model, tmp_path)
    assert torch.equal(after, before)
    assert again.dtype == torch.bfloat16
    assert again.config.float32_components == ["vision", "perceiver"]
    assert (
        {w.dtype for w in again.vision.parameters()}
        == {w.dtype for w in again.perceiver.parameters()}
        == {torch.float32}
    )


def test_saved_again_in_shards_it_is_equal_to_the_bit(merged, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(merged)
    model.save_pretrained(tmp_path / "again", max_shard_size="4MB")
    AutoProcessor.from_pretrained(merged).save_pretrained(tmp_path / "again")
    assert len([*(tmp_path / "again").glob("model-*.safetensors")]) > 2
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "again")
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight
    for file in (
        "config.json",
        "modeling_mmgpt.py",
        "processor_config.json",
        "generation_config.json",
        "tokenizer.json",
    ):
        assert (tmp_path / "again" / file).read_text() == (tmp_path / merged / file).read_text(), file


def test_device_map(merged, chat):
    model = AutoModelForImageTextToText.from_pretrained(merged, device_map="auto")
    ours, theirs = batch(chat.model, 64)
    with torch.no_grad():
        assert_close(model(**theirs).logits, chat.model(**ours, mode="tensor"))
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("template", ["short", "plain", "openflamingo_vqa"])
@pytest.mark.parametrize("tokenization", ["segments", "stripped"])
def test_templates_and_tokenizations(experiment, tmp_path, template, tokenization):
    cfg, model = experiment(tokenization)
    cfg.chat_pipeline[1].template = template
    chat = Chat(model, [*map(TRANSFORMS.build, cfg.chat_pipeline)])
    text = " What colour is  the <image> circle? "
    conversation = Conversation().with_question(text)
    conversation.turns[0]["answer"] = "red"
    conversation = conversation.with_question(text)
    messages = [dict(role="user", content=text), dict(role="assistant", content="red"), dict(role="user", content=text)]
    expected = chat.prepare(conversation)["input_ids"]
    opened(cfg, model, tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected)


def test_the_loss_is_that_of_training_and_the_head_comes_after_the_base_model(merged, chat):
    ours, theirs = batch(chat.model, 64)
    labels = ours["input_ids"].clone()
    labels[0, :7] = labels[1, :2] = -100
    attention = torch.ones_like(labels)
    attention[1, 8:], labels[1, 8:] = 0, -100
    more = dict(labels=labels, attention_mask=attention)
    expected = chat.flamingo(**ours, **more, mode="loss")["loss_text"].item()
    model = AutoModelForImageTextToText.from_pretrained(merged)
    output = model(**theirs, **more)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    states = model.base_model(**theirs, attention_mask=attention).last_hidden_state
    assert_close(model.get_output_embeddings()(states), output.logits)


def test_adapters_by_name_on_the_base(tiny_base, adapted, chat, tmp_path):
    cfg = load_config(tiny_base.filename, {name: tiny_base[name] for name in PARTS})
    cfg.model = cfg.model.module
    base = build_model(cfg, device="cpu")
    export_transformers(cfg, base, tmp_path / "base", merged=False)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    ours, theirs = batch(base, 64)
    with torch.no_grad():
        before, after = base(**ours, mode="tensor"), chat.model(**ours, mode="tensor")
        assert torch.equal(model(**theirs).logits, before)
        tuned = PeftModel.from_pretrained(model, adapted, adapter_name="one")
        assert_close(tuned(**theirs).logits, after)
        tuned.load_adapter(adapted, "two")
        for name, weight in tuned.named_parameters():
            weight.mul_(0 if ".lora_B.two." in name else 1)
        for adapter, expected in (("two", before), ("one", after)):
            tuned.set_adapter(adapter)
            assert_close(tuned(**theirs).logits, expected)


def test_attention_implementations_of_the_language_model(merged, chat):
    ours, theirs = batch(chat.model, 64)
    with torch.no_grad():
        expected = chat.model(**ours, mode="tensor")
        for name in ("sdpa", "eager"):
            model = AutoModelForImageTextToText.from_pretrained(merged, attn_implementation=name)
            assert model.language.model.config._attn_implementation == name
            assert_close(model(**theirs).logits, expected)
    with pytest.raises(ValueError, match="torch's flex_attention"):
        AutoModelForImageTextToText.from_pretrained(merged, attn_implementation="flex_attention")


def test_a_cache_without_its_images_is_refused(merged, chat):
    model = AutoModelForImageTextToText.from_pretrained(merged)
    _, inputs = batch(chat.model, 64)
    output = model(**inputs, use_cache=True)
    with pytest.raises(ValueError, match="use generate"):
        model(inputs["input_ids"][:, -1:], past_key_values=output.past_key_values)
    with pytest.raises(ValueError, match="3 `<image>` tokens and 2 images"):
        model(inputs["input_ids"], pixel_values=inputs["pixel_values"][:2])


def test_a_folder_with_an_adapter_is_refused_without_peft(adapted, monkeypatch):
    monkeypatch.setattr(modeling, "is_peft_available", lambda: False)
    with pytest.raises(ImportError, match="has a LoRA adapter: pip install peft"):
        AutoModelForImageTextToText.from_pretrained(adapted)


class OwnPerceiver(PerceiverResampler):
    """A component that the source file does not hold."""


def test_what_the_folder_cannot_describe_is_refused(experiment, tmp_path):
    cfg, model = experiment()
    model.perceiver.__class__ = OwnPerceiver
    with pytest.raises(
        ValueError, match="a OwnPerceiver cannot be exported for transformers, only: PerceiverResampler"
    ):
        export_transformers(cfg, model, tmp_path / "out", merged=True)
    model.perceiver.__class__ = PerceiverResampler
    cfg.chat_pipeline.insert(0, dict(type="EachImage", transforms=[]))
    with pytest.raises(ValueError, match="chat_pipeline has the steps .'EachImage', 'PrepareImages'"):
        export_transformers(cfg, model, tmp_path / "out", merged=True)
    assert not (tmp_path / "out").exists()


def test_merged_goes_with_the_format_of_transformers(export, tmp_path):
    with pytest.raises(ValueError, match="--merged and --apart go with --format transformers"):
        export(tmp_path / "out", "--merged", "--format", "mmgpt")
