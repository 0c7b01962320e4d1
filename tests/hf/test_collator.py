"""The collator for transformers' Trainer and TRL's SFTTrainer, against the data and the steps of tools/train.py."""

import json
import re
from pathlib import Path
from shutil import copy, copytree

import pytest
import torch
from mmengine.config import Config
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainerCallback, TrainingArguments

from mmgpt.apis import build_model
from mmgpt.cli import load_config
from mmgpt.datasets import collate_conversations
from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.engine.global_batch import set_totals
from mmgpt.hf import MMGPTCollator
from mmgpt.hf.export import export_transformers, hf_processor
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.models.weights.trainable import load_trainable
from mmgpt.utils.errors import MissingImageError, SampleError
from tests.helpers.chat_pipeline import pipeline

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "tests" / "data" / "chat_templates"
PARTS = ("language_model", "vision_model", "flamingo_weights")


def user(*contents):
    return dict(role="user", content=list(contents))


def text(value):
    return dict(type="text", text=value)


def image(path):
    return dict(type="image", path=path)


def assistant(answer):
    return dict(role="assistant", content=answer)


@pytest.fixture
def records(conversations):
    """Conversations with no, one, two and three images, in the forms of OpenAI and TRL."""
    messages, _ = conversations
    wide, clear = (content["path"] for content in messages[2][0]["content"][:2])
    turned = messages[3][0]["content"][1]["path"]
    next_image = dict(type="image")
    return [
        dict(
            messages=[user(text("What is </s>?")), assistant("no <image>"), user(text("red?")), assistant("a circle")]
        ),
        dict(messages=[user(image(clear), text("What is this?")), assistant(" a red circle ")]),
        dict(prompt=[user(next_image, next_image, text("?"))], completion=[assistant("blue")], images=[wide, turned]),
        dict(
            messages=[
                dict(role="system", content="Be brief."),
                user(text("What is "), image(turned), text("?")),
                assistant("square"),
                user(image(clear), image(wide), text("Two?")),
                assistant("yes, two"),
            ]
        ),
    ]


def read(records, steps, tmp_path):
    """The samples of records, as training reads them with these steps of a pipeline."""
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    steps = [dict(type="LoadImages"), *steps, dict(type="PackInputs")]
    return list(InstructionDataset("messages", pipeline=steps, ann_file=str(file)))


def with_pil(record):
    """A record with open images in the place of paths."""
    if isinstance(record, dict):
        return {"image" if key == "path" else key: with_pil(value) for key, value in record.items()}
    if isinstance(record, list):
        return [with_pil(value) for value in record]
    return Image.open(record) if record.endswith(".png") else record


@pytest.mark.parametrize(
    "template, tokenization", [("chat", "segments"), ("short", "segments"), ("instruction", "stripped")]
)
def test_batches_are_those_of_training(records, tiny_llama, tmp_path, template, tokenization):
    folder = str(copytree(tiny_llama, tmp_path / "language"))
    copy(TEMPLATES / "zephyr.jinja", folder + "/chat_template.jinja")
    prepare, prompt, tokens = pipeline(folder, None)
    prompt = dict(type="FormatPrompt", template=template, tokenizer=folder, system="You see.")
    steps = [prepare, prompt, {**tokens, "tokenization": tokenization}]
    expected = collate_conversations(read(records, steps, tmp_path))
    chat_steps = [prepare, {**prompt, "open_last": True}, steps[2]]
    hf_processor(Config(dict(chat_pipeline=chat_steps)), load_tokenizer(folder)).save_pretrained(tmp_path / "out")
    collator = MMGPTCollator(AutoProcessor.from_pretrained(tmp_path / "out"))
    for examples in (records, [with_pil(record) for record in records]):
        batch = collator(examples)
        assert batch.keys() == {"input_ids", "attention_mask", "labels", "pixel_values"}
        real = torch.arange(3) < expected["image_counts"][:, None]
        assert torch.equal(batch["pixel_values"], expected["pixels"][real])
        for name in ("attention_mask", "labels"):
            assert torch.equal(batch[name], expected[name])
        assert torch.equal(batch["input_ids"] * batch["attention_mask"], expected["input_ids"])
    assert collator(records[:1]).keys() == {"input_ids", "attention_mask", "labels"}


def test_images_whose_token_is_cut_off_are_left_out(merged, conversations):
    messages, _ = conversations
    path = messages[2][0]["content"][0]["path"]
    turn = [user(image(path), text("What is this?")), assistant("a red circle")]
    processor = AutoProcessor.from_pretrained(merged)
    whole = MMGPTCollator(processor)([dict(messages=turn * 2)])
    second = (whole["input_ids"][0] == processor.image_token_id).nonzero()[1].item()
    cut = MMGPTCollator(processor, max_length=second)([dict(messages=turn * 2)])
    assert len(whole["pixel_values"]) == 2
    assert len(cut["pixel_values"]) == 1
    assert torch.equal(cut["input_ids"], whole["input_ids"][:, :second])


def test_what_cannot_be_trained_on_is_refused(merged, records):
    processor = AutoProcessor.from_pretrained(merged)
    collator = MMGPTCollator(processor, max_length=12)
    question, answer = user(text("What is this?")), assistant("a")
    for conversation, error, message in (
        ({}, SampleError, "record 1: no columns are left: .* remove_unused_columns=False"),
        (dict(id="x", messages=[question]), SampleError, "record 1, id 'x': nothing to learn: its answer is empty"),
        (dict(messages=[question, question, answer]), SampleError, "the limit is 12: 2 tokens of its answers"),
        (dict(messages=[user(image("no.png")), answer]), MissingImageError, "no.png': no such file"),
        (dict(text="a"), SampleError, "no key 'messages'; keys found: text"),
    ):
        with pytest.raises(error, match=message):
            collator([records[1], conversation])
    assert (collator(records[1:2])["labels"] != IGNORE_INDEX).sum() > 0
    processor.prompt_template = None
    with pytest.raises(ValueError, match="no prompt_template: export its folder again"):
        MMGPTCollator(processor)


class Gradients(TrainerCallback):
    """The gradients with which the optimizer makes its step."""

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.by_name = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("name", ["Trainer", "SFTTrainer"])
def test_a_step_is_that_of_training(name, tiny_base, checkpoint, adapted, records, tmp_path):
    if name == "SFTTrainer":
        reason = "pip install -r requirements/trl.txt"
        trl, datasets = (pytest.importorskip(package, reason=reason) for package in ("trl", "datasets"))
    cfg = load_config(tiny_base.filename, {part: tiny_base[part] for part in PARTS})
    # 1. A step of tools/train.py: two batches of two samples.
    model = build_model(cfg, device="cpu")
    load_trainable(model, checkpoint)
    prepare, prompt, tokens = cfg.chat_pipeline[:3]
    samples = read(records, [prepare, {**prompt, "open_last": False}, tokens], tmp_path)
    batches = [collate_conversations(samples[:2]), collate_conversations(samples[2:])]
    set_totals(batches)
    losses = [sum(model.train()(**batch, mode="loss").values()) / 2 for batch in batches]
    sum(losses).backward()
    # 2. The same by transformers, on peft's wrapper of the base.
    base = load_config(tiny_base.filename, {part: tiny_base[part] for part in PARTS})
    base.model = base.model.module
    export_transformers(base, build_model(base, device="cpu"), tmp_path / "base", merged=False)
    tuned = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    tuned = PeftModel.from_pretrained(tuned, adapted, is_trainable=True)
    processor, gradients = AutoProcessor.from_pretrained(adapted), Gradients()
    arguments = dict(
        output_dir=str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        logging_steps=1,
        max_grad_norm=0,
        use_cpu=True,
        report_to=[],
        remove_unused_columns=False,
    )
    common = dict(data_collator=MMGPTCollator(processor), callbacks=[gradients])
    if name == "Trainer":
        trainer = Trainer(tuned, TrainingArguments(**arguments), train_dataset=records, **common)
    else:
        arguments = trl.SFTConfig(**arguments, bf16=False, dataset_kwargs=dict(skip_prepare_dataset=True))
        columns = dict.fromkeys(("messages", "prompt", "completion", "images"))
        dataset = datasets.Dataset.from_list([columns | record for record in records], on_mixed_types="use_json")
        trainer = trl.SFTTrainer(tuned, arguments, train_dataset=dataset, processing_class=processor, **common)
    trainer.train()
    # 3. Loss and gradients.
    [loss] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert loss == pytest.approx(sum(losses).item(), abs=1e-5)
    prefixes = ("base_model.model.", "peft.base_model.model.")
    found = {key.replace(".default", "").removeprefix(prefixes[0]): value for key, value in gradients.by_name.items()}
    trained = [(key, weight) for key, weight in model.named_parameters() if weight.requires_grad]
    assert len(found) == len(trained) > 10
    for key, weight in trained:
        ours = found[key.replace(".default", "").removeprefix(prefixes[1])]
        torch.testing.assert_close(ours, weight.grad, rtol=0, atol=1e-4)
    assert max(weight.grad.abs().max() for _, weight in trained) > 1e-2


def test_the_example_of_the_docs_runs(merged, records, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "weights.md").read_text().partition("### Training with transformers and TRL")[2]
    example = re.search(r"```python\n(from peft.*?)```", page, re.DOTALL)[1]
    (tmp_path / "work_dirs").mkdir()
    (tmp_path / "work_dirs" / "base").symlink_to(merged)
    monkeypatch.chdir(tmp_path)
    names = dict(examples=records)
    exec(compile(example, "weights.md", "exec"), names)
    assert names["trainer"].state.log_history[-1]["train_loss"] > 0
