"""Adapters apart from their base: peft loads them, by name, on transformers' model of the base."""

import json
from shutil import copytree

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from mmgpt.apis import build_model
from mmgpt.apis.export import export
from mmgpt.hf.export import export_transformers
from mmgpt.models import flamingo_of
from mmgpt.models.adapters import load_adapters, use_adapter
from tests.helpers.tolerances import assert_close
from tests.hf.test_export import batch

LORA = dict(r=2, target_modules="all-linear", init_lora_weights=False)


def weak(model):
    """A model with its updates so small that rounding is not amplified."""
    for name, weight in model.named_parameters():
        weight.data.mul_(0.2 if ".lora_" in name else 1)
    return model


def tuned(experiment, tmp_path, **tuning):
    """Two tunings of one base: config, model and logits of each; and the folders that were written of them."""
    outputs, folders = [], []
    for number in range(2):
        cfg, model = experiment(tuning=dict(lora=dict(LORA, r=2 + number), **tuning))
        ours, theirs = batch(weak(model))
        with torch.no_grad():
            outputs.append(model(**ours, mode="tensor"))
            folders += [tmp_path / f"exported{number}", tmp_path / f"apart{number}"]
            export(cfg, model, folders[-2])
            export_transformers(cfg, model, folders[-1], merged=False, apart=True)
    return outputs, folders, theirs


@pytest.mark.parametrize("tuning", [{}, dict(train=["perceiver", "gated"]), dict(train_tokens=["<image>"])])
def test_adapters_by_name_on_a_base(experiment, tmp_path, tuning):
    (one, two), (exported, apart, _, other), inputs = tuned(experiment, tmp_path, **tuning)
    assert (one - two).abs().max() > 0.01
    base = AutoModelForImageTextToText.from_pretrained(apart)
    with torch.no_grad():
        untuned = base(**inputs).logits
        assert (one - untuned).abs().max() > 0.01
        model = PeftModel.from_pretrained(base, exported / "adapter", adapter_name="one")
        model.load_adapter(other / "adapter", "two")
        for name, expected in (("one", one), ("two", two), ("one", one)):
            model.set_adapter(name)
            assert_close(model(**inputs).logits, expected)
        with model.disable_adapter():
            assert torch.equal(model(**inputs).logits, untuned)
        model.set_adapter("two")
        assert_close(model.merge_and_unload()(**inputs).logits, two)


@pytest.mark.parametrize("tuning", [{}, dict(train=["perceiver", "gated"]), dict(train_tokens=["<image>"])])
def test_the_same_adapters_in_mmgpt(experiment, tmp_path, tuning):
    (one, two), (exported, apart, _, other), inputs = tuned(experiment, tmp_path, **tuning)
    cfg, model = experiment(tuning=dict(lora=LORA, **tuning))
    if "train" in tuning:  # the base with the components of the first one, which the second one does not share
        model = build_model(cfg, exported, "cpu")
    ours, _ = batch(model)
    peft = load_adapters(model, cfg, dict(one=exported, two=other / "adapter")).eval()
    base = AutoModelForImageTextToText.from_pretrained(apart)
    with torch.no_grad():
        untuned = base(**inputs).logits
        for name, expected in ((None, untuned), ("one", one), ("two", two), (None, untuned)):
            use_adapter(peft, name)
            assert_close(flamingo_of(peft)(**ours, mode="tensor"), expected)


@pytest.mark.parametrize("tuning", [dict(train=["perceiver", "gated"]), dict(train_tokens=["<image>"])])
def test_what_only_one_adapter_trained_leaves_the_others_as_they_are(experiment, tmp_path, tuning):
    cfg, model = experiment(tuning=dict(lora=LORA, **tuning))
    ours, _ = batch(weak(model))
    with torch.no_grad():
        one = model(**ours, mode="tensor")
        export(cfg, model, tmp_path / "one")
        cfg, model = experiment(tuning=dict(lora=dict(LORA, r=3, target_modules=["q_proj"])))
        two = weak(model)(**ours, mode="tensor")
        export(cfg, model, tmp_path / "two")
        with model.disabled():
            untuned = model(**ours, mode="tensor")
        peft = load_adapters(model, cfg, dict(one=tmp_path / "one", two=tmp_path / "two")).eval()
        for name, expected in (("one", one), ("two", two), (None, untuned), ("two", two), ("one", one)):
            use_adapter(peft, name)
            assert_close(flamingo_of(peft)(**ours, mode="tensor"), expected)


def test_biases_cannot_be_kept_apart(experiment, tmp_path):
    cfg, model = experiment(tuning=dict(lora=dict(r=2, target_modules=["to_q", "ff.1"], bias="lora_only")))
    with pytest.raises(ValueError, match="lora.bias='lora_only': biases of the base are trained"):
        export_transformers(cfg, model, tmp_path / "out", merged=False, apart=True)
    assert not (tmp_path / "out").exists()


def test_the_card_says_how_to_load_the_adapter(export, tmp_path, monkeypatch):
    folder = export(tmp_path / "apart", "--apart")
    assert json.loads((tmp_path / "apart" / "config.json").read_text())["has_adapter"] is False
    text = ModelCard.load(tmp_path / "apart" / "README.md").text
    snippet = text.partition("```python\n")[2].partition("```")[0]
    assert "PeftModel" in snippet
    copytree(folder, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert list(names["model"].peft_config) == ["tuned"]
