"""Which models may be trained: those whose images reach the language model, and can teach it."""

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mmgpt.apis import Chat
from mmgpt.cli.config import steps_of
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.engine.runner import MMGPTRunner
from mmgpt.models.gated_lm import GatedCrossAttentionBlock
from mmgpt.models.image_path import check_image_path, warn_of_closed_gates
from mmgpt.models.weights.names import new_tensors
from mmgpt.registry import MODELS
from tests.helpers.chat_pipeline import pipeline
from tests.helpers.scripts import run_script

ROOT = Path(__file__).parents[2]
LORA = dict(r=2, target_modules=["q_proj", "to_q"], exclude_modules=r"(vision|perceiver)\..*")
LANGUAGE_ONLY = dict(LORA, target_modules=["q_proj"])


@pytest.fixture
def build(tiny_flamingo_config):
    """A function that builds a Flamingo with some gates, in LoRA if it is given, with changes of its config."""

    def built(lora=None, gate=0.0, train=None, **changes):
        module = {**copy.deepcopy(tiny_flamingo_config), **changes}
        module["gated"]["gate_init"] = gate
        return MODELS.build(dict(type="LoRAModel", module=module, lora=dict(lora), train=train) if lora else module)

    return built


@pytest.fixture
def weights(build, tmp_path):
    """A file of the resampler and the gated blocks, with open gates."""
    path = str(tmp_path / "flamingo.safetensors")
    save_file({name: value.contiguous() for name, value in new_tensors(build(gate=0.5)).items()}, path)
    return path


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr("mmgpt.models.image_path.print_log", lambda text, *_: lines.append(text))
    return lines


def blocks(model):
    return [part for part in model.modules() if isinstance(part, GatedCrossAttentionBlock)]


@pytest.mark.parametrize("lora", [LORA, LANGUAGE_ONLY])
def test_lora_on_new_gates_is_refused(build, lora):
    with pytest.raises(ValueError, match="of all gated blocks are zero and frozen") as refused:
        check_image_path(build(lora))
    assert all(
        name in str(refused.value) for name in ("flamingo_weights", "model.train=['perceiver', 'gated']", "align.py")
    )


def test_lora_on_new_gates_is_refused_in_other_families(build, tiny_v2):
    """Where LoRA finds nothing in the language model, gradients were zero throughout."""
    with pytest.raises(ValueError, match="of all gated blocks are zero and frozen"):
        check_image_path(build({**LORA, "target_modules": ["to_q", "ff.1"]}, language=dict(path=tiny_v2)))


def test_lora_on_loaded_gates_of_zero_is_refused(build, tmp_path):
    path = str(tmp_path / "new.safetensors")
    save_file({name: value.contiguous() for name, value in new_tensors(build()).items()}, path)
    with pytest.raises(ValueError, match=r"zero and frozen.*flamingo_weights \(now '.*new\.safetensors'\)"):
        check_image_path(build(LORA, weights=path))


def test_one_open_attention_gate_is_enough(build, weights):
    model = build(LORA, weights=weights)
    with torch.no_grad():
        for block in blocks(model)[1:]:
            block.attn_gate.zero_()
    check_image_path(model)
    with torch.no_grad():
        blocks(model)[0].attn_gate.zero_()
    assert all(block.ff_gate.item() == 0.5 for block in blocks(model))
    with pytest.raises(ValueError, match="zero and frozen"):
        check_image_path(model)
    blocks(model)[1].attn_gate.requires_grad_(True)
    check_image_path(model)


def test_a_path_that_is_random_and_frozen_is_refused(build):
    with pytest.raises(ValueError, match="were not loaded and are frozen"):
        check_image_path(build(LANGUAGE_ONLY, gate=0.5))


def test_a_trained_or_loaded_image_path_passes(build, weights, warned):
    """New gates that are trained, also beside LoRA; LoRA on what was loaded, in the language model alone, too."""
    new = build(LANGUAGE_ONLY, train=["perceiver", "gated"])
    for model in (build(), new, build(LORA, weights=weights), build(LANGUAGE_ONLY, weights=weights)):
        check_image_path(model)
    assert warned == []


@pytest.mark.parametrize(
    ("lora", "changes", "parts"),
    [
        (None, dict(frozen=["vision", "language", "perceiver"]), "resampler"),
        (LORA, dict(gate=0.5), "resampler, gated blocks"),
        (LANGUAGE_ONLY, dict(train=["gated"]), "resampler"),
    ],
)
def test_frozen_random_weights_are_warned_of(build, warned, lora, changes, parts):
    check_image_path(build(lora, **changes))
    assert len(warned) == 1
    assert f"frozen random weights: {parts}." in warned[0]


def test_a_frozen_random_image_encoder_is_warned_of(build, warned):
    vision = dict(type="OpenCLIPVision", model=str(ROOT / "configs/_base_/models/tiny_tower.json"))
    check_image_path(build(vision=vision))
    assert len(warned) == 1
    assert "frozen random weights: image encoder." in warned[0]
    check_image_path(build(vision=vision, frozen=["language"]))
    assert len(warned) == 1


def test_other_models_pass():
    check_image_path(torch.nn.Linear(2, 2))


RUN = """
_base_ = {base!r}
language_model, vision_model, data_root = {language!r}, {vision!r}, {data!r}
flamingo_weights, prepare_images, max_length = None, dict(size=32), 1000
train_dataloader = dict(num_workers=0, persistent_workers=False)
custom_hooks = []
default_hooks = dict(_delete_=True)
"""


def test_the_command_refuses_before_the_first_step(tmp_path, tiny_llama, tiny_clip, data_root):
    """Whatever hooks the config has, and with texts alone, too."""
    base, config = str(ROOT / "configs" / "mmgpt" / "lora_language_only.py"), tmp_path / "own.py"
    config.write_text(RUN.format(base=base, language=tiny_llama, vision=tiny_clip, data=str(data_root)))
    done = run_script(ROOT / "tools" / "train.py", config, "--work-dir", tmp_path / "run")
    assert done.returncode == 1
    assert "\nerror: the gates (attn_gate) of all gated blocks are zero" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("*.pth"))


def test_closed_gates_are_warned_of_before_answers(build, weights, monkeypatch):
    lines = []
    monkeypatch.setattr("mmgpt.models.image_path.print_log", lambda text, *_: lines.append(text))
    warn_of_closed_gates(build(LORA, weights=weights))
    assert not lines
    warn_of_closed_gates(build(LORA))
    assert len(lines) == 1
    assert "images do not reach this model" in lines[0]


def test_a_model_with_closed_gates_answers_texts_only(build, tiny_llama):
    chat = Chat(build().eval(), build_pipeline(pipeline(tiny_llama)), dict(max_new_tokens=2))
    assert isinstance(chat.ask(chat.start(), "what?"), str)
    with pytest.raises(ValueError, match="all gated blocks are zero: images do not reach this model"):
        chat.ask(chat.start(), "what?", [Image.new("RGB", (40, 30))])


def test_closed_gates_are_not_evaluated_with_images(tiny_base, tmp_path):
    cfg = copy.deepcopy(tiny_base)
    cfg.model.module.update(weights=None, gated=dict(cfg.model.module.gated, gate_init=0.0))
    cfg.update(work_dir=str(tmp_path), load_from=None, experiment_name="closed_gates")
    assert any(steps_of(cfg.test_dataloader, "LoadImages"))
    for name in [name for name in cfg if name.startswith(("train_", "optim_", "param_"))]:
        cfg.pop(name)
    runner = MMGPTRunner.from_cfg(cfg)
    with pytest.raises(ValueError, match="images do not reach this model.* or evaluate on texts alone"):
        runner.load_or_resume()
    cfg.test_dataloader, cfg.experiment_name = dict(dataset=dict(pipeline=[dict(type="FormatPrompt")])), "closed_texts"
    MMGPTRunner.from_cfg(cfg).load_or_resume()
