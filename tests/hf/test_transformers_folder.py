"""A folder for transformers, opened with the package and without it, against Chat with the same model."""

import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from shutil import copy, copytree

import pytest
import torch

import mmgpt.hf  # noqa: F401 (its classes become known to transformers)
from mmgpt.apis import Chat
from mmgpt.hf.export import export_transformers
from mmgpt.registry import TRANSFORMS
from tests.helpers import transformers_alone
from tests.helpers.tolerances import assert_close

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "tests" / "data" / "chat_templates"


def opened_alone(folders, messages, tmp_path):
    """What a process without mmgpt and MMEngine makes of folders."""
    file, out = tmp_path / "conversations.json", tmp_path / "out.pt"
    file.write_text(json.dumps(dict(conversations=messages)))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, transformers_alone.__file__, str(file), str(out), *folders]
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return torch.load(out)


@pytest.mark.parametrize("alone", [False, True])
def test_transformers_computes_what_chat_does(alone, chat, conversations, merged, adapted, tmp_path):
    messages, ours = conversations
    if alone:
        outputs = opened_alone([merged, adapted], messages, tmp_path)
    else:
        outputs = [transformers_alone.open_folder(folder, messages, trust=False) for folder in (merged, adapted)]
    for output in outputs:
        assert output["module"].startswith("transformers_modules." if alone else "mmgpt.hf")
        assert output["vocabulary"] == chat.model.tokenizer.get_vocab()
        assert_as_chat(output, chat, ours)


def assert_as_chat(output, chat, ours):
    answers = chat.answer_all(ours, dict(max_new_tokens=8, num_beams=1))
    batch = output["batch"]
    assert batch["answers"] == answers
    assert len(set(answers)) > 3
    pixels = iter(batch["pixel_values"])
    for number, (row, conversation) in enumerate(zip(output["rows"], ours, strict=True)):
        inputs = chat.prepare(conversation)
        length = inputs["input_ids"].shape[1]
        assert torch.equal(row["input_ids"], inputs["input_ids"])
        assert torch.equal(batch["input_ids"][number, -length:], inputs["input_ids"][0])
        assert batch["attention_mask"][number].sum() == length
        assert ("pixel_values" in row) == bool(conversation.images)
        expected_pixels = inputs["pixels"][0] if conversation.images else []
        for image, expected in zip(row.get("pixel_values", []), expected_pixels, strict=True):
            torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)
            torch.testing.assert_close(next(pixels), expected, rtol=0, atol=1e-6)
        with torch.no_grad():
            logits = chat.model(**inputs, mode="tensor")
        assert_close(row["logits"], logits)
        assert_close(batch["logits"][number, -length:], logits[0])
        assert row["cached"] == row["uncached"] == output["pipeline"][number] == [answers[number]]
    assert next(pixels, None) is None


def test_a_chat_template_an_encoder_of_timm_and_components_in_full(
    experiment, conversations, tiny_llama, tiny_timm, tmp_path
):
    # The system text of the last conversation is part of its question in ours.
    messages, ours = (part[:-1] for part in conversations)
    language = copytree(tiny_llama, tmp_path / "language")
    copy(TEMPLATES / "zephyr.jinja", language / "chat_template.jinja")
    vision = dict(type="TimmVision", path=tiny_timm)
    tuning = dict(lora=dict(r=2, target_modules="all-linear", init_lora_weights=False), train=["perceiver", "gated"])
    cfg, model = experiment(tuning=tuning, language=dict(path=str(language)), vision=vision)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(0.3 if ".lora_" in name else 1)  # so that rounding is not amplified
    prompt = dict(type="FormatPrompt", template="chat", tokenizer=str(language), system="Be brief.", open_last=True)
    cfg.chat_pipeline[:2] = [dict(type="PrepareImages", preprocessing=vision), prompt]
    chat = Chat(deepcopy(model.eval()), [*map(TRANSFORMS.build, cfg.chat_pipeline)])
    export_transformers(cfg, model, tmp_path / "out", merged=False)
    [output] = opened_alone([str(tmp_path / "out")], messages, tmp_path)
    assert_as_chat(output, chat, ours)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`chat_template.jinja`, the language model's own." in card


@pytest.mark.parametrize("alone", [False, True])
def test_tiles_are_those_of_chat(alone, experiment, conversations, tiny_flamingo_config, tmp_path):
    messages, ours = conversations
    cfg, model = experiment(perceiver=dict(tiny_flamingo_config["perceiver"], max_tiles=4))
    values = dict(size=32, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    cfg.chat_pipeline[0] = dict(type="PrepareImages", **values, resize_mode="squash", tiles=dict(max=4))
    chat = Chat(deepcopy(model.eval()), [*map(TRANSFORMS.build, cfg.chat_pipeline)])
    export_transformers(cfg, model, tmp_path / "out", merged=True)
    if alone:
        [output] = opened_alone([str(tmp_path / "out")], messages, tmp_path)
    else:
        output = transformers_alone.open_folder(str(tmp_path / "out"), messages, trust=False)
    for row, conversation in zip(output["rows"], ours, strict=True):
        inputs = chat.prepare(conversation)
        if conversation.images:
            assert torch.equal(row["tile_ids"], inputs["tile_ids"][0])
            torch.testing.assert_close(row["pixel_values"], inputs["pixels"][0], rtol=0, atol=1e-6)
        with torch.no_grad():
            assert_close(row["logits"], chat.model(**inputs, mode="tensor"))
    answers = chat.answer_all(ours, dict(max_new_tokens=8, num_beams=1))
    assert output["batch"]["answers"] == answers
    assert [row for [row] in output["pipeline"]] == answers


def test_the_example_of_the_docs_runs(merged, conversations, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "weights.md").read_text().partition("## For transformers")[2]
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    messages, _ = conversations
    (tmp_path / "work_dirs").mkdir()
    (tmp_path / "work_dirs" / "transformers").symlink_to(merged)
    (tmp_path / "photo.jpg").symlink_to(messages[1][0]["content"][0]["path"])
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "weights.md", "exec"), {})
    one, other = capsys.readouterr().out.splitlines()
    assert one.strip() == other.strip() != ""
