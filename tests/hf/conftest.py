"""The tiny base with random LoRA updates, exported for transformers, and conversations about images."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmgpt.apis import Chat, Conversation, build_model
from mmgpt.cli import load_config
from mmgpt.datasets.conversation import IMAGE_CONTENT, prepend_text, text_content
from mmgpt.models.weights.trainable import trainable_state
from tests.helpers.chat_pipeline import pipeline

CONVERTERS = Path(__file__).parents[2] / "tools" / "model_converters"


@pytest.fixture
def experiment(tiny_flamingo_config, tmp_path):
    """A function that gives config and model of the tiny random Flamingo, changed.

    Its arguments are the tokenization, those of LoRAModel beside the Flamingo, and what is changed in the Flamingo.
    """

    def make(tokenization="segments", tuning=None, **changes):
        flamingo = {**tiny_flamingo_config, **changes}
        path = flamingo["language"]["path"]
        steps = [*pipeline(path, 400)[:-1], dict(pipeline(path, 400)[-1], tokenization=tokenization)]
        model = dict(type="LoRAModel", module=flamingo, **tuning) if tuning else flamingo
        Config(dict(model=model, chat_pipeline=steps, default_scope="mmgpt")).dump(tmp_path / "experiment.py")
        cfg = load_config(tmp_path / "experiment.py")
        torch.manual_seed(1)
        built = build_model(cfg, device="cpu")
        for parameter in built.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        return cfg, built

    return make


@pytest.fixture(scope="session")
def checkpoint(tiny_base, tmp_path_factory):
    """A checkpoint of the tiny base whose LoRA updates change the answers."""
    model = build_model(tiny_base, device="cpu")
    torch.manual_seed(1)
    state = {name: torch.randn_like(value) * 0.05 for name, value in trainable_state(model).items()}
    path = tmp_path_factory.mktemp("lora") / "latest.pth"
    torch.save(dict(state_dict=state, meta={}, message_hub={}), path)
    return str(path)


@pytest.fixture(scope="session")
def export(tiny_base, checkpoint):
    """A function that exports the tuned model by the command, with further arguments, and returns the folder."""

    def run(out, *arguments):
        paths = [f"{name}={tiny_base[name]}" for name in ("language_model", "vision_model", "flamingo_weights")]
        command = ["export", tiny_base.filename, checkpoint, str(out), "--format", "transformers", *arguments]
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(CONVERTERS)
            import weights

            patch.setattr(sys, "argv", ["weights.py", *command, "--cfg-options", *paths])
            weights.main()
        return str(out)

    return run


@pytest.fixture(scope="session")
def merged(export, tmp_path_factory):
    """The folder with merged weights."""
    return export(tmp_path_factory.mktemp("transformers") / "merged", "--merged")


@pytest.fixture(scope="session")
def adapted(export, tmp_path_factory):
    """The folder with an adapter."""
    return export(tmp_path_factory.mktemp("transformers") / "adapted")


@pytest.fixture(scope="session")
def chat(tiny_base, checkpoint):
    """Chat with the tuned model."""
    return Chat.from_config(tiny_base, checkpoint, device="cpu")


@pytest.fixture(scope="session")
def conversations(tmp_path_factory):
    """Messages of conversations with none, one and two images, and the same as Chat's Conversations."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    # Sizes at which other image processors crop elsewhere, transparency, and an orientation.
    shapes = [(427, 640, 3), (70, 70, 4), (90, 64, 3)]
    files = []
    for number, shape in enumerate(shapes):
        image = Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 2 else 1
        files.append(str(folder / f"{number}.png"))
        image.save(files[-1], exif=exif)
    wide, clear, turned = files
    tags = "Is <image> or </s> a tag, or <|endofchunk|>\ufdd0?"
    turns = [
        [(["What colour is the circle?"], None)],
        [([wide, "What is this?"], None)],
        [([wide, clear, "Which of them is red?"], None)],
        [(["This is the first: ", turned, " and this the second: ", wide, ". What do you see?"], None)],
        [([clear, "What is this?"], "a red circle"), (["Is it large?"], None)],
        [([clear, "What is this?"], "a red circle"), ([turned, "And this?"], "a <image> square"), ([tags], None)],
        [([tags, wide], None)],
        [(["Answer in one word.", wide, "What is this?"], None)],
    ]
    messages = [
        [
            message
            for question, answer in conversation
            for message in (
                {"role": "user", "content": [_content(content) for content in question]},
                {"role": "assistant", "content": answer},
            )
            if message["content"] is not None
        ]
        for conversation in turns
    ]
    # The last one's first text is its system message.
    [last] = messages[-1]
    messages[-1] = [{"role": "system", "content": last["content"].pop(0)["text"]}, last]
    ours = [_conversation(conversation) for conversation in turns[:-1]]
    system, *question = turns[-1][0][0]
    last = _conversation([(question, None)])
    last.turns[0]["question"] = prepend_text(system, last.turns[0]["question"])
    return messages, [*ours, last]


def _content(content):
    is_file = content.endswith(".png")
    return {"type": "image", "path": content} if is_file else {"type": "text", "text": content}


def _conversation(turns):
    from mmgpt.apis import read_image

    images = [read_image(content) for question, _ in turns for content in question if content.endswith(".png")]
    contents = [
        [IMAGE_CONTENT if content.endswith(".png") else text_content(content) for content in question]
        for question, _ in turns
    ]
    answers = [{} if answer is None else {"answer": answer} for _, answer in turns]
    return Conversation([{"question": c, **a} for c, a in zip(contents, answers, strict=True)], images)
