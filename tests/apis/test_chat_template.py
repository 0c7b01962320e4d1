"""A model with its own chat template: one step of training, chat, page, and the exported folder."""

import json
from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from mmgpt.apis import Chat, Conversation, build_model
from mmgpt.apis.export import export, merge
from mmgpt.apis.templates import chat_template, chat_templates, template_start, with_template
from mmgpt.cli import load_config
from mmgpt.datasets import collate_conversations
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.harness.likelihood import answer_losses
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.models.tokenizer import load_tokenizer
from tests.helpers.chat_templates import chat_folder

PREPARE = dict(type="PrepareImages", size=32, mean=[0.1, 0.2, 0.3], std=[0.4] * 3)
FORMAT = dict(type="FormatPrompt", template="chat", tokenizer="${language_model}", system="Be brief.")
TOKENIZE = dict(type="TokenizeSegments", tokenizer="${language_model}", max_length=200)


@pytest.fixture
def experiment(tiny_clip, tiny_flamingo_config, tmp_path, request):
    """Config of a tiny model with the template of a family; Phi-3's end of turn is not its end of sequence."""
    folder = chat_folder(getattr(request, "param", "phi3"), tmp_path / "base")
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
    rows = load_tokenizer(folder).backend_tokenizer.get_vocab_size() - 3  # without those that are added
    ids = dict(bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(LlamaConfig(**sizes, **ids, vocab_size=rows, initializer_range=0.2)).save_pretrained(folder)
    flamingo = dict(
        tiny_flamingo_config,
        vision=dict(type="OpenCLIPVision", path="${vision_model}"),
        language=dict(path="${language_model}"),
    )
    lora = dict(r=2, lora_alpha=4, target_modules=["q_proj"], exclude_modules=r"(vision|perceiver)\..*")
    values = dict(
        language_model=folder,
        vision_model=tiny_clip,
        model=dict(type="LoRAModel", module=flamingo, lora=lora),
        answer_steps=[PREPARE, FORMAT, TOKENIZE, dict(type="PackInputs")],
        chat_pipeline=[PREPARE, dict(FORMAT, open_last=True), TOKENIZE],
        default_scope="mmgpt",
    )
    Config(values).dump(tmp_path / "experiment.py")
    return load_config(tmp_path / "experiment.py")


def conversation():
    turns = [dict(question=[dict(type="text", text="what "), dict(type="image"), dict(type="text", text=" <|end|>?")])]
    return Conversation(turns, [Image.new("RGB", (40, 30), "red")])


def test_train_chat_export_and_load(experiment, tmp_path):
    torch.manual_seed(1)
    model = build_model(experiment, device="cpu")
    tokenizer = model.tokenizer
    end, user = tokenizer.convert_tokens_to_ids(["<|end|>", "<|user|>"])
    # 1. One step on an answer.
    sample = dict(vars(conversation()), images=["x"], pil=conversation().images, source="visual")
    sample["turns"][0]["answer"] = "red"
    for transform in build_pipeline(experiment.answer_steps):
        sample = transform(sample)
    labels = [label for label in sample["labels"].tolist() if label != IGNORE_INDEX]
    assert labels[-1] == end
    assert tokenizer.decode(labels[:-1]) == "red"
    ids = sample["input_ids"].tolist()
    assert ids[0] != tokenizer.bos_token_id
    assert (ids.count(user), ids.count(end)) == (1, 3)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    before = deepcopy({name: value for name, value in model.named_parameters() if value.requires_grad})
    batch = collate_conversations([sample], tokenizer.pad_token_id)
    losses = model.train()(**batch, mode="loss")
    sum(losses.values()).backward()
    optimizer.step()
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters() if name in before)
    # 2. Chat continues the same prompt, and ends at the template's end.
    chat = Chat(model.eval(), build_pipeline(experiment.chat_pipeline), dict(max_new_tokens=5))
    prompt = chat.prepare(conversation())["input_ids"][0].tolist()
    assert ids[: len(prompt)] == prompt
    assert ids[len(prompt) :][: len(labels)] == labels
    assert chat.settings_in_force()["eos_token_id"] == [tokenizer.eos_token_id, end]
    answer = chat.submit(conversation(), dict(sequence_bias=[[[end], 1000.0]]))
    assert answer.text() == ""
    assert answer.finish_reason == "stop"
    assert answer.prompt.startswith("<|system|>Be brief.<|end|><|user|>what <image> <|end|>?<|end|><|assistant|>")
    # 3. The exported and the merged folder answer in the same way.
    inputs = chat.prepare(conversation())
    logits = torch.no_grad()(lambda model: model(**inputs, mode="tensor"))
    expected = logits(model)
    export(experiment, model, tmp_path / "exported")
    merge(experiment, model, tmp_path / "merged", 1e-3)
    for folder in (tmp_path / "exported", tmp_path / "merged"):
        steps = json.loads((folder / "mmgpt.json").read_text())["chat_pipeline"]
        assert steps[1]["template"] == "chat"
        assert steps[2]["add_bos_token"] is False
        torch.manual_seed(1)  # of the resampler and the gated blocks, which no file of this base has
        again = Chat.from_config(folder, device="cpu")
        assert again.prepare(conversation())["input_ids"][0].tolist() == prompt
        assert torch.allclose(logits(again.model), expected, atol=1e-3)
        assert again.settings_in_force()["eos_token_id"] == [tokenizer.eos_token_id, end]


def test_templates_of_a_chat(experiment):
    chat = Chat(build_model(experiment, device="cpu"), build_pipeline(experiment.chat_pipeline))
    assert list(chat_templates(chat)) == ["chat", "instruction", "short"]
    assert template_start(chat, chat_template(chat)) == "Be brief."
    prompt = with_template(chat, "short").submit(conversation()).prompt
    assert prompt == "### Instruction:\nBe brief.\n\nwhat <image> <|end|>?\n\n### Response:\n"
    other = with_template(chat, "short", "Hi. ")
    assert list(chat_templates(other)) == ["the model's own", "instruction", "short", "chat"]
    kind = with_template(other, "chat", "Be kind.")
    assert kind.submit(conversation()).prompt.startswith("<|system|>Be kind.<|end|>")
    started = chat.start("Be rude.").with_question("what?")
    assert chat.submit(started).prompt == "<|system|>Be rude.<|end|><|user|>what?<|end|><|assistant|>"


@pytest.mark.parametrize("experiment", ["phi3", "smollm2"], indirect=True)
def test_the_loss_of_an_answer_is_that_of_training(experiment):
    """SmolLM2's template writes a line break after the end of an answer, which has no label."""
    model = build_model(experiment, device="cpu").eval()
    chat = Chat(model, build_pipeline(experiment.chat_pipeline))
    turns = [dict(question="what?", answer="red"), dict(question="and?", answer="a blue circle")]
    [(loss, _)] = answer_losses(chat, [Conversation(turns)])
    ids, labels = chat.pipeline[-1].encode(chat_template(chat).format_turns(turns, system="Be brief.", last_only=True))
    with torch.no_grad():
        losses = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), mode="loss")
    assert loss == pytest.approx(sum(losses.values()).item(), abs=1e-4)


def test_an_exported_folder_of_before_keeps_the_start_of_sequence(experiment, tmp_path):
    experiment.chat_pipeline[1].template = "short"
    model = build_model(experiment, device="cpu")
    export(experiment, model, tmp_path / "exported")
    question = Conversation().with_question("what?")
    start = model.tokenizer.bos_token_id
    assert Chat.from_config(tmp_path / "exported", device="cpu").prepare(question)["input_ids"][0, 0] != start
    file = tmp_path / "exported" / "mmgpt.json"
    description = json.loads(file.read_text())
    del description["chat_pipeline"][2]["add_bos_token"]
    file.write_text(json.dumps(description))
    assert Chat.from_config(tmp_path / "exported", device="cpu").prepare(question)["input_ids"][0, 0] == start
