"""Serving: merged LoRA and other precisions answer as the model does, and load no copy of it in another precision."""

import sys
from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch.nn.functional import cosine_similarity

from mmgpt.apis import Chat, build_model
from mmgpt.apis.precision import build_for_serving, for_serving
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.models import Flamingo, LoRAModel
from mmgpt.models.language import load_language_model
from mmgpt.models.weights.trainable import trainable_state


def build(cfg):
    """The tiny base with LoRA updates that change what it says, the same each time."""
    model = build_model(cfg, device="cpu")
    torch.manual_seed(0)
    for name, weight in sorted(model.named_parameters()):
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def tuned(tiny_base):
    return build(tiny_base)


@pytest.fixture(scope="module")
def checkpoint(tuned, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "latest.pth"
    torch.save(dict(state_dict=trainable_state(tuned), meta={}, message_hub={}), path)
    return path


@pytest.fixture(scope="module")
def inputs(tuned):
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, 800, (2, 12), generator=generator)
    input_ids[:, 1] = tuned.module.language.image_token_id
    return dict(input_ids=input_ids, pixels=torch.randn(2, 1, 3, 64, 64, generator=generator))


@torch.inference_mode()
def logits(model, inputs):
    return model(**inputs, mode="tensor").float()


def likeness(model, other, inputs):
    return cosine_similarity(logits(model, inputs).flatten(), logits(other, inputs).flatten(), dim=0).item()


def quantized(precision):
    if precision == "int4":  # On a CPU, 8 bits are the project's own.
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (requirements/quantization.txt)")


@pytest.mark.parametrize("more", [{}, dict(use_dora=True), dict(use_rslora=True)], ids=["plain", "dora", "rslora"])
def test_lora_is_merged_into_the_weights(tiny_base, inputs, more):
    cfg = deepcopy(tiny_base)
    cfg.model.lora.update(more)
    model = build(cfg)
    with model.disabled():
        untuned = logits(model, inputs)
    before = logits(model, inputs)
    served = for_serving(model)
    assert type(served) is Flamingo
    assert not any("lora" in name for name, _ in served.named_modules())
    assert torch.allclose(logits(served, inputs), before, atol=1e-3)
    assert not torch.allclose(untuned, before, atol=0.1)
    assert for_serving(served) is served  # nothing is left to merge


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize(
    ("precision", "least"),
    [(None, 0.99999), ("float32", 0.99999), ("bfloat16", 0.999), ("int8", 0.999), ("int4", 0.99)],
)
def test_every_precision_answers_as_the_model_does(tiny_base, tuned, inputs, precision, least, merge):
    quantized(precision)
    served = for_serving(deepcopy(tuned), precision, merge)
    assert isinstance(served, Flamingo if merge else LoRAModel)
    assert likeness(served, tuned, inputs) > least
    # Chat has a decoding of its own beside transformers'.
    chat = Chat(served, build_pipeline(tiny_base.chat_pipeline), dict(max_new_tokens=5))
    assert isinstance(chat.ask(chat.start(), "what colour?", [Image.new("RGB", (64, 64), "red")]), str)
    answers = served.generate(**inputs, max_new_tokens=5)
    assert answers.shape[0] == 2
    assert 1 <= answers.shape[1] <= 5
    if precision in (None, "float32"):
        assert torch.equal(answers, tuned.generate(**inputs, max_new_tokens=5))


def test_every_weight_is_bfloat16_and_rotary_frequencies_are_not(tuned):
    served = for_serving(deepcopy(tuned), "bfloat16")
    assert {weight.dtype for weight in served.state_dict().values() if weight.is_floating_point()} == {torch.bfloat16}
    frequencies = [buffer for name, buffer in served.named_buffers() if name.endswith("inv_freq")]
    before = [buffer for name, buffer in tuned.named_buffers() if name.endswith("inv_freq")]
    assert frequencies
    assert all(map(torch.equal, frequencies, before))


def column_major(model):
    """Names of the layers whose weights are column-major."""
    weights = {name: part.weight for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    return {name for name, weight in weights.items() if weight.stride() == (1, weight.shape[0]) != (weight.shape[1], 1)}


def test_wide_layers_of_the_language_model_are_column_major(tuned):
    model, served = deepcopy(tuned), for_serving(deepcopy(tuned), merge=False)
    assert not column_major(model)
    names = {name.rpartition("language.")[2].removesuffix(".base_layer") for name in column_major(served)}
    assert {"q_proj", "gate_proj", "to_q", "to_kv", "1"} <= {name.rpartition(".")[2] for name in names}
    assert not any(name.endswith(("down_proj", "ff.3", "lora_A.default")) for name in names)
    assert all("language." in name for name in column_major(served))
    pairs = zip(model.state_dict().items(), served.state_dict().items(), strict=True)
    assert all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)
    assert not column_major(for_serving(deepcopy(tuned), "bfloat16"))


def test_an_output_head_that_is_also_the_embedding_stays_as_it_is(tuned):
    served = deepcopy(tuned)
    language = served.module.language
    language.get_output_embeddings().weight = language.get_input_embeddings().weight
    for_serving(served, merge=False)
    assert language.get_input_embeddings().weight.is_contiguous()


@pytest.mark.parametrize(("precision", "stored"), [("int8", torch.int8), ("int4", torch.uint8)])
def test_the_language_models_own_matrices_are_quantized_and_nothing_else(tuned, precision, stored):
    quantized(precision)
    served = for_serving(deepcopy(tuned), precision)
    dtypes = {name: weight.dtype for name, weight in served.named_parameters()}
    small = {name for name, dtype in dtypes.items() if dtype == stored}
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert len(small) == 4 * len(names) + (precision == "int8")  # of four layers; on a CPU, with the head
    assert all(name.split(".")[-2] in (*names, "lm_head") and ".gated." not in name for name in small)
    assert {dtype for name, dtype in dtypes.items() if name not in small} == {torch.bfloat16}


def test_a_layer_with_a_bias_keeps_it(tiny_v2, tiny_flamingo_config, inputs):
    if "gpt_neox" not in tiny_v2:
        pytest.skip("MPT has no biases")
    quantized("int8")
    flamingo = build_model(Config(dict(model=dict(tiny_flamingo_config, language=dict(path=tiny_v2)))), device="cpu")
    for name, weight in flamingo.language.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    text = dict(input_ids=inputs["input_ids"][:, 2:] % 250)
    served = for_serving(deepcopy(flamingo), "int8")
    assert likeness(served, flamingo, text) > 0.99


@pytest.mark.parametrize(
    ("precision", "dtype"), [(None, None), ("float32", "float32"), ("bfloat16", "bfloat16"), ("int4", "bfloat16")]
)
def test_the_language_model_is_loaded_in_the_dtype_of_the_precision(
    tiny_base, checkpoint, tuned, inputs, monkeypatch, precision, dtype
):
    quantized(precision)
    loaded = []

    def noting(**language):
        loaded.append(language.get("dtype"))
        return load_language_model(**language)

    monkeypatch.setattr("mmgpt.models.language.load_language_model", noting)
    served = build_for_serving(tiny_base, checkpoint, "cpu", precision)
    assert loaded == [dtype]
    assert "dtype" not in tiny_base.model.module.language
    assert likeness(served, tuned, inputs) > (0.99 if precision == "int4" else 0.999)
    assert not served.training


@pytest.mark.parametrize("fast", ["float32", "bfloat16"])
def test_the_fast_precision_is_that_of_the_device_and_the_weights_are_read_in_it(tiny_base, monkeypatch, fast):
    """On a machine that has a GPU, too, a CPU is measured."""
    loaded = []

    def noting(**language):
        loaded.append(language["dtype"])
        return load_language_model(**language)

    monkeypatch.setattr("mmgpt.models.language.load_language_model", noting)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    seconds = {"float32": 1.0, "bfloat16": 1.0, fast: 0.1}
    monkeypatch.setattr("mmgpt.models.memory.probe.layer_seconds", lambda *_: seconds)
    served = build_for_serving(tiny_base, device="cpu", precision="auto")
    assert loaded == [fast]
    assert {weight.dtype for weight in served.parameters()} == {getattr(torch, fast)}


def test_a_wrong_precision_is_refused_before_anything_is_built(tiny_base, monkeypatch):
    monkeypatch.setattr("mmgpt.apis.precision.build_model", lambda *_: pytest.fail("built"))
    with pytest.raises(ValueError, match="unknown precision 'half'; choose one of auto, float32, bfloat16, int8, int4"):
        build_for_serving(tiny_base, precision="half")
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used"):
        build_for_serving(tiny_base, device="nowhere", precision="bfloat16")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="'int4' needs bitsandbytes: pip install -r requirements/quantization.txt"):
        build_for_serving(tiny_base, precision="int4")
