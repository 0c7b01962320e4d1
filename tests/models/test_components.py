"""Components of a Flamingo from outside of the package."""

import pytest
import torch
from PIL import Image

from mmgpt.apis import Chat, build_model
from mmgpt.apis.export import export
from mmgpt.cli import load_config
from mmgpt.cli.description import _foreign
from mmgpt.registry import MODELS
from tests.helpers.chat_pipeline import pipeline
from tests.helpers.transformers_generate import reference_generate
from tests.models.test_flamingo import batch

MODULE = '''
import torch
from torch import nn

from mmgpt.models import GatedCausalLM
from mmgpt.models.media import apply_block
from mmgpt.registry import MODELS


@MODELS.register_module(force=True)
class LinearResampler(nn.Module):
    """The first patches of an image through one linear layer."""

    takes_positions = False

    def __init__(self, dim, num_latents):
        super().__init__()
        self.num_latents = num_latents
        self.linear = nn.Linear(dim, dim)

    def forward(self, features, positions):
        return self.linear(features.flatten(2, 3)[:, :, : self.num_latents])


@MODELS.register_module(force=True)
class MeanBlock(nn.Module):
    """Adds the mean of the latents that a token attends to."""

    def __init__(self, dim, dim_visual, index, scale=1.0):
        super().__init__()
        self.index, self.scale = index, scale
        self.values = nn.Linear(dim_visual, dim)

    def keys_values(self, media):
        if media.cache is not None and self.index in media.cache:
            return media.cache[self.index]
        values = self.values(media.features.flatten(1, 2))[:, None]
        if media.cache is not None:
            media.cache[self.index] = values, values
        return values, values

    def forward(self, hidden_states, media):
        def block(rows):
            mask = media.mask
            if mask is not None and not mask.shape[-1]:
                return rows
            values = self.keys_values(media)[1][:, 0]
            if mask is None:
                mask = torch.ones(*rows.shape[:2], values.shape[1], dtype=torch.bool)
            weights = mask / mask.sum(-1, keepdim=True).clamp(min=1)
            return rows + self.scale * (weights @ values)

        return apply_block(block, hidden_states, media)


@MODELS.register_module(force=True)
class HalvedLanguage(GatedCausalLM):
    """A language model whose images count half."""

    def __init__(self, half, **arguments):
        super().__init__(**arguments)
        self.half = half

    def media(self, input_ids, features, *arguments):
        return super().media(input_ids, features if features is None else features * self.half, *arguments)


@MODELS.register_module(force=True)
class NoKeys(nn.Module):
    def __init__(self, dim, dim_visual, index):
        super().__init__()

    def forward(self, hidden_states, media):
        return hidden_states


@MODELS.register_module(force=True)
class OneInput(nn.Module):
    def __init__(self, dim):
        super().__init__()

    def forward(self, features):
        return features
'''


@pytest.fixture
def config(tmp_path, monkeypatch, tiny_flamingo_config, tiny_llama):
    """A config file whose resampler, gated block and language model are those of a module of its own."""
    (tmp_path / "components_of_ours.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    model = dict(
        tiny_flamingo_config,
        perceiver=dict(type="LinearResampler", num_latents=3),
        gated=dict(type="MeanBlock", every_n_layers=2, scale=0.5),
        language=dict(type="HalvedLanguage", path=tiny_llama, half=0.5),
    )
    path = tmp_path / "experiment.py"
    path.write_text(
        f"default_scope = 'mmgpt'\ncustom_imports = dict(imports=['components_of_ours'])\n"
        f"language_model = {tiny_llama!r}\nmodel = {model!r}\nchat_pipeline = {pipeline('${language_model}', 400)!r}\n"
    )
    return path


@pytest.mark.parametrize("image_attention", ["latest", "next"])
def test_components_of_ones_own_are_trained_exported_and_asked(config, tmp_path, image_attention):
    torch.manual_seed(0)
    cfg = load_config(config, {"model.image_attention": image_attention})
    model = build_model(cfg, device="cpu")
    assert type(model.perceiver).__name__ == "LinearResampler"
    assert type(model.language).__name__ == "HalvedLanguage"
    assert [type(layer.gated).__name__ for layer in model.language.model.model.layers[1::2]] == ["MeanBlock"] * 2
    data = batch(model)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    before = model(**data, mode="loss")
    sum(before.values()).backward()
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert {name.split(".")[0] for name in trained} == {"perceiver", "language"}
    assert all(weight.grad.any() for weight in model.parameters() if weight.requires_grad)
    optimizer.step()
    assert model(**data, mode="loss")["loss_visual"] < before["loss_visual"]

    arguments = {key: data[key] for key in ("input_ids", "pixels", "image_counts")}
    cached = model.generate(**arguments, max_new_tokens=4)
    assert torch.equal(cached, reference_generate(model, **arguments, max_new_tokens=4, use_cache=False))

    export(cfg, model, tmp_path / "out")
    loaded = Chat.from_config(tmp_path / "out", device="cpu", trust=True)
    assert torch.equal(loaded.model(**data), model(**data))
    image = Image.new("RGB", (32, 32), "red")
    chats = loaded, Chat(model, loaded.pipeline)
    answers = [chat.ask(chat.start(), "what colour is it", [image]) for chat in chats]
    assert answers[0] == answers[1]


def test_types_of_the_package_may_be_named(tiny_flamingo_config):
    types = dict(perceiver="PerceiverResampler", gated="GatedCrossAttentionBlock", language="GatedCausalLM")
    named = {name: {**tiny_flamingo_config[name], "type": kind} for name, kind in types.items()}
    states = []
    for changes in ({}, named):
        torch.manual_seed(0)
        states.append(MODELS.build({**tiny_flamingo_config, **changes}).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not list(_foreign({"model": {**tiny_flamingo_config, **named}}))


def test_a_gated_block_of_ones_own_keeps_packed_samples_apart(config):
    """A row of two samples, the second without an image, gives the losses that each has alone."""
    model = build_model(load_config(config), device="cpu")
    data = batch(model)
    ids, labels = data["input_ids"], data["labels"]
    alone = model(**{**data, "attention_mask": None}, mode="tensor")
    packed = torch.cat((ids[0], ids[2]))[None], torch.tensor([[0] * 9 + [1] * 9])
    together = model(packed[0], pixels=data["pixels"][:1, :1], sample_ids=packed[1], labels=labels, mode="tensor")
    torch.testing.assert_close(together[0, :9], alone[0])
    torch.testing.assert_close(together[0, 9:], alone[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(gated=dict(_delete_=True, type="NoKeys")), "gated: NoKeys lacks keys_values, which a Flamingo needs"),
        (
            dict(perceiver=dict(_delete_=True, type="OneInput")),
            r"the forward of OneInput does not take \(features, positions\)",
        ),
        (dict(perceiver=dict(dim=3)), "perceiver.dim follows from the other components: leave it out"),
        (dict(vision=dict(_delete_=True, type="OneInput", dim=3)), "vision: OneInput lacks width"),
        (dict(vision=dict(_delete_=True, path="x")), r"vision has no type, the class of the component \(got path\)"),
    ],
)
def test_a_component_that_lacks_what_is_needed_is_refused(config, change, message):
    cfg = load_config(config, {"model": change})
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg.model)
