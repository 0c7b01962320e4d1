"""The adapter for lmms-eval against stand-ins with its interface (lmms_eval 0.7.3), called as its evaluator calls."""

import abc
import runpy
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools
import torch

from mmgpt.apis import Chat, Conversation
from tests.harness.conftest import SEED, WORDS_ONLY
from tests.helpers.tolerances import TERMS, rounding

ROOT = Path(__file__).resolve().parents[2]


class Lmms(abc.ABC):  # noqa: B024 (its abstract methods stand in one line)
    """The parts of lmms_eval.api.model.lmms that a model meets."""

    is_simple = True

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    loglikelihood = generate_until = generate_until_multi_round = abc.abstractmethod(lambda self, requests: None)

    @classmethod
    def create_from_arg_string(cls, arg_string, additional_config):
        arguments = dict(pair.split("=", 1) for pair in arg_string.split(","))
        return cls(**arguments, **{k: v for k, v in additional_config.items() if v is not None})

    @property
    def rank(self):
        return self._rank

    @property
    def world_size(self):
        return self._world_size

    def clean(self):
        self.cleaned = True


@dataclass
class Instance:
    args: tuple


@dataclass
class GenerationResult:
    text: object


def unwrapped(output):
    """What the evaluator keeps of an output: lmms_eval.api.instance.unwrap_generation_output."""
    return output.text if isinstance(output, GenerationResult) else str(output)


@dataclass
class Manifest:
    model_id: str
    simple_class_path: str


DOCS = [  # context, generation arguments, numbers of the pictures
    ("what colour is it?", {"max_new_tokens": 6}, [0]),
    ("one or two?", {"max_new_tokens": 3, "until": ["\n\n"]}, []),
    ("is this <image> or <image> the blue square, what is the colour?", {"max_new_tokens": 6}, [2, 1]),
    ("the shape\n<image>", {"max_new_tokens": 6}, [1]),
    ("what is red?", {"max_new_tokens": 6}, [0, 1, 2]),
]


@pytest.fixture
def adapter(stand_in, fresh_import):
    stand_in("lmms_eval.api.instance", GenerationResult=GenerationResult)
    stand_in("lmms_eval.api.model", lmms=Lmms)
    return fresh_import("mmgpt.harness.lmms_eval")


@pytest.fixture
def load(adapter, chat_config, chat_checkpoint, pictures):
    """The model as lmms-eval builds it, with its task at hand."""

    def build(**config):
        text = f"pretrained={chat_config},checkpoint={chat_checkpoint}"
        torch.manual_seed(SEED)
        model = adapter.MMGPT.create_from_arg_string(text, {"batch_size": "1", "max_batch_size": None, **config})
        model.chat.generation = WORDS_ONLY
        model.task_dict["t"] = {"test": [{"pictures": [pictures[i] for i in of]} for *_, of in DOCS]}
        return model

    return build


def requests(second=None):
    """Those of generate_until, or with another second argument for each."""
    return [
        Instance((context, arguments if second is None else second[number], visual, number, "t", "test"))
        for number, (context, arguments, _) in enumerate(DOCS)
    ]


def visual(document):
    # Some tasks say None where a document has no image.
    return document["pictures"] or None


def test_the_entry_point_names_the_class(adapter, stand_in, monkeypatch):
    said = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: said.update(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    (line,) = said["entry_points"]["lmms_eval.models"]
    name, value = line.split(" = ")
    stand_in("lmms_eval.models.registry_v2", ModelManifest=Manifest)
    manifest = EntryPoint(name, value, "lmms_eval.models").load()()
    assert manifest.model_id == name == "mmgpt"
    module, name = manifest.simple_class_path.rsplit(".", 1)
    model = getattr(import_module(module), name)
    assert issubclass(model, Lmms)
    assert model.is_simple
    assert not model.__abstractmethods__


def test_the_entry_point_loads_no_model():
    code = "import sys, mmgpt.harness.lmms_eval_plugin; print({'torch', 'mmengine', 'lmms_eval'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


@pytest.mark.parametrize("batch_size", ["1", 2, 5])
def test_answers_equal_the_chat_in_the_order_of_the_requests(load, chat, pictures, batch_size):
    model = load(batch_size=batch_size, device="cpu")
    answers = model.generate_until(requests())
    for number in (0, 1, 4):
        context, arguments, of = DOCS[number]
        alone = Chat(chat.model, chat.pipeline, {**WORDS_ONLY, "max_new_tokens": arguments["max_new_tokens"]})
        assert answers[number] == alone.ask(alone.start(), context, [pictures[i] for i in of])
    assert answers[3] == chat.ask(chat.start(), "the shape", [pictures[1]])
    parts = ["is this ", 2, " or ", 1, " the blue square, what is the colour?"]
    turn = [{"type": "image"} if isinstance(part, int) else {"type": "text", "text": part} for part in parts]
    assert answers[2] == chat.answer_all([Conversation([{"question": turn}], [pictures[2], pictures[1]])])[0]
    assert all(answers)
    assert len(set(answers)) == 5


def test_images_matter_and_keep_their_order(load, pictures, submitted):
    model = load()
    before = model.generate_until(requests())[4]
    model.task_dict["t"]["test"][4]["pictures"] = pictures[::-1]
    calls = submitted(model.chat)
    after = model.generate_until(requests()[4:])[0]
    [[request]] = calls
    assert len(request.pixels) == 3
    assert request.pixels.mean(dim=(2, 3)).argmax(dim=1).tolist() == [1, 2, 0]
    assert after != before


@pytest.mark.parametrize("context, images, question", [
    ("a <image> b", 1, [("text", "a "), None, ("text", " b")]),
    ("<image>\na b", 1, [None, ("text", "a b")]),
    ("a <image> or <image>", 1, "a  or"),
    ("a <image>", 0, "a"),
    ("a b\n", 2, "a b"),
])  # fmt: skip
def test_marks_are_removed_when_they_are_not_as_many_as_the_images(adapter, context, images, question):
    said = adapter.conversation_of(context, ["picture"] * images)
    if isinstance(question, list):
        question = [{"type": "text", "text": part[1]} if part else {"type": "image"} for part in question]
    assert said.turns == [{"question": question}]
    assert said.images == ["picture"] * images


@pytest.mark.parametrize("arguments, expected", [
    ({"max_new_tokens": 8, "temperature": 0, "top_p": 1.0, "num_beams": 3, "do_sample": False, "until": ["x"],
      "image_aspect_ratio": "original"}, {"max_new_tokens": 8, "num_beams": 3, "do_sample": False}),
    ({"temperature": 0.7, "top_p": 0.9}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}),
    ({"temperature": 0.7, "do_sample": False}, {"do_sample": False}),
    ({"temperature": 0, "do_sample": True, "top_p": None}, {"do_sample": False}),
    ({"do_sample": True}, {"do_sample": True}),
])  # fmt: skip
def test_generation_arguments_of_a_task(adapter, arguments, expected):
    assert adapter.generation_arguments(arguments) == expected


def test_generation_arguments_reach_the_model(load, submitted):
    model = load(batch_size=4)
    calls = submitted(model.chat)
    several = [
        {"num_beams": 2, "max_new_tokens": 2},
        {"max_new_tokens": 3},
        *[{"num_beams": 2, "max_new_tokens": 2}] * 3,
    ]
    model.generate_until(requests(several))
    samplers = [(len(call), call[0].sampler) for call in calls]
    seen = sorted((count, each.settings.num_beams, each.max_new_tokens) for count, each in samplers)
    assert seen == [(1, 1, 3), (4, 2, 2)]


def test_an_answer_ends_before_its_stop_text(load, adapter):
    model = load()
    whole = model.generate_until(requests())[0]
    middle = whole[len(whole) // 2]
    some = requests([{"max_new_tokens": 6, "until": ["", middle]}] * 5)
    assert model.generate_until(some)[0] == whole[: whole.index(middle)].strip() != whole
    assert adapter.cut("one. two! three", "!") == "one. two"
    assert adapter.cut(" one ", None) == "one"


ANSWERS = [" red", " two", " the square is blue", " a circle", " no"]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_loglikelihood_is_the_mean_loss_of_the_answer(load, chat, pictures, batch_size):
    model = load(batch_size=batch_size)
    found = losses(model, ANSWERS)
    for number in (0, 1, 4):
        context, _, of = DOCS[number]
        assert found[number] == (
            pytest.approx(by_hand(chat, context, [pictures[i] for i in of], ANSWERS[number]), rel=rounding(TERMS, 1)),
            False,
        )
    others = losses(model, ANSWERS[::-1])
    assert len({round(loss, 4) for loss, _ in found + others[:2]}) == 7


def losses(model, continuations):
    return [unwrapped(output) for output in model.loglikelihood(requests(continuations))]


def by_hand(chat, context, images, answer):
    """The loss token by token: each from a pass over what comes before it."""
    parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": context}]
    inputs = chat.prepare(Conversation([{"question": parts}], images))
    tokenizer = chat.model.tokenizer
    losses = []
    for token in [*tokenizer(answer.strip(), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]:
        with torch.inference_mode():
            logits = chat.model(**inputs, mode="tensor")[0, -1]
        losses.append(-logits.log_softmax(dim=-1)[token].item())
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return sum(losses) / len(losses)


def test_a_continuation_may_be_a_function_and_greedy_answers_are_recognized(load, monkeypatch):
    model = load(batch_size=2)
    assert losses(model, [lambda document: " a circle"] * 5) == losses(model, [" a circle"] * 5)
    # A model that says "two" and ends, whatever comes before.
    tokenizer = model.chat.model.tokenizer
    two, end = tokenizer("two", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id
    follows = dict(zip(two, [*two[1:], end], strict=True))

    def logits(input_ids, **rest):
        best = torch.tensor([[follows.get(token, two[0]) for token in row] for row in input_ids.tolist()])
        return SimpleNamespace(logits=torch.nn.functional.one_hot(best, len(tokenizer)).float())

    monkeypatch.setattr(model.chat.flamingo.language, "forward", logits)
    found = losses(model, [" two", "two", "one", "two one", " two"])
    assert [greedy for _, greedy in found] == [True, True, False, False, True]
    # It may end with another of the tokens that end its answers.
    follows[two[-1]] = 1
    assert losses(model, ["two"] * 5)[0][1] is False
    model.chat.flamingo.language.generation_config.eos_token_id = [end, 1]
    assert losses(model, ["two"] * 5)[0][1] is True


def test_errors_name_the_argument_or_the_document(load, adapter, chat_config):
    with pytest.raises(ValueError, match="batch_size='auto'"):
        load(batch_size="auto")
    with pytest.raises(KeyError, match="did you mean 'language_model'"):
        adapter.MMGPT(chat_config, languge_model="x")
    model = load(batch_size=2)
    with pytest.raises(NotImplementedError, match="several rounds"):
        model.generate_until_multi_round([])
    with pytest.raises(ValueError, match=r"task 't', split 'test', one of the documents \[3, 4\]: an answer is empty"):
        model.loglikelihood(requests(["red", "red", "red", " ", "red"]))
    long = requests(["red " * 400] * 5)
    with pytest.raises(ValueError, match="with its prompt is longer than the chat takes"):
        model.loglikelihood(long)
    model.task_dict["t"]["test"][1]["pictures"] = ["film.mp4"]
    with pytest.raises(FileNotFoundError, match="film.mp4"):
        model.generate_until(requests())


def test_options_reach_the_config_and_ranks_the_harness(adapter, chat_config, load):
    model = adapter.MMGPT(chat_config, device="cpu", **{"model.module.generation": dict(max_new_tokens=2)})
    assert model.chat.model.generation == {"max_new_tokens": 2}
    assert (model.rank, model.world_size, model.device) == (0, 1, torch.device("cpu"))
    assert model.accelerator.num_processes == 1
    model.clean()
    assert model.cleaned
    assert not hasattr(model, "chat")
