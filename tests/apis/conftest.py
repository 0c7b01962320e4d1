"""A tiny experiment: config file with model and chat pipeline, and a checkpoint of it."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def pipeline(tokenizer, max_length=160):
    return [
        dict(type="PrepareImages", size=32, mean=MEAN, std=STD),
        dict(type="FormatPrompt", template="instruction", open_last=True),
        dict(type="TokenizeSegments", tokenizer=tokenizer, max_length=max_length),
    ]


@pytest.fixture(scope="session")
def chat_config(tmp_path_factory, tiny_flamingo_config, tiny_llama):
    """A config file as an experiment would have it."""
    model = dict(type="LoRAModel", module=tiny_flamingo_config, lora=dict(r=2, target_modules=["q_proj", "to_q"]))
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    # A chat needs no data: what is missing there is no obstacle.
    data = dict(dataset=dict(type="InstructionDataset", ann_file="nowhere/x.json"))
    path.write_text(
        f"default_scope = 'mmgpt'\nlanguage_model = {tiny_llama!r}\nmodel = {model!r}\n"
        f"test_dataloader = {data!r}\nchat_pipeline = {pipeline('${language_model}', 400)!r}\n"
    )
    return str(path)


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory, chat_config):
    """A checkpoint of that experiment whose LoRA changes the answers."""
    from mmgpt.apis import build_model
    from mmgpt.engine import load_config
    from mmgpt.engine.trained import trained_state

    model = build_model(load_config(chat_config))
    torch.manual_seed(1)
    state = {name: torch.randn_like(value) for name, value in trained_state(model).items()}
    path = tmp_path_factory.mktemp("checkpoint") / "latest.pth"
    torch.save(dict(state_dict=state, meta={}, message_hub={}), path)
    return str(path)


@pytest.fixture(scope="session")
def tiny_base():
    """The tiny experiment's config, loaded, on the committed base: trained weights, and LoRA that changes nothing."""
    from mmgpt.engine import load_config

    folder = ROOT / "checkpoints" / "tiny"
    parts = dict(language_model="language", vision_model="vision", flamingo_weights="flamingo.safetensors")
    options = {name: str(folder / part) for name, part in parts.items()}
    return load_config(ROOT / "configs" / "mmgpt" / "tiny_lora_joint.py", options)
