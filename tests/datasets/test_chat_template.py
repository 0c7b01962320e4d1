"""The language model's own chat template: tokens, labels and prompts equal those of transformers."""

import random
from functools import cache

import pytest

from mmgpt.datasets.chat_template import ChatTemplate
from mmgpt.datasets.inspection.token_spans import to_token_spans
from mmgpt.datasets.prompts import find_template
from mmgpt.datasets.segments import Segment, prompt_text
from mmgpt.datasets.transforms import FormatPrompt, TokenizeSegments
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.models.special_tokens import end_of_turn
from mmgpt.models.tokenizer import load_tokenizer
from mmgpt.utils.errors import SampleError
from tests.conftest import WORDS
from tests.helpers.chat_templates import FAMILIES, GENERATION, chat_folder, reference

TYPED = "<image> </s> <s> <|im_start|> <|im_end|> <|eot_id|> <end_of_turn> <|end|> [/INST]".split()
NO_SYSTEM = ("gemma", "mistral")
CONVERSATIONS = 100


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Tokenizer, reference of transformers and its special tokens, by family and whether answers are marked."""
    loaded = {}

    def load(name, generation=False):
        if (name, generation) not in loaded:
            folder = chat_folder(name, tmp_path_factory.mktemp("chat") / name, generation)
            loaded[name, generation] = (load_tokenizer(folder), *reference(folder))
        return loaded[name, generation]

    return load


def some_text(rng, edges, typed):
    choices = [*WORDS, "naïve", "漢字", "🙂", "x=1.", "{a}", *(TYPED if typed else [])]
    words = [rng.choice(choices) for _ in range(rng.randint(1, 7))]
    text = "".join(word + rng.choice([" ", " ", "", "\n", "  "]) for word in words)
    return rng.choice(["", " ", "\n"]) + text if edges else text.strip()


def some_conversation(rng, name, typed, edges=True):
    """Turns with images in any place, and a system text or none."""
    turns = []
    for _ in range(rng.randint(1, 4)):
        texts = [dict(type="text", text=some_text(rng, edges, typed)) for _ in range(rng.randint(1, 2))]
        question = [*texts, *[dict(type="image")] * rng.randint(0, 2)]
        rng.shuffle(question)
        turns.append(dict(question=question, answer=some_text(rng, edges and rng.random() < 0.5, typed)))
    system = "" if name in NO_SYSTEM or rng.random() < 0.5 else some_text(rng, edges, typed)
    return turns, system


def as_messages(turns, system, image):
    """The conversation as transformers takes it, with a text for each image."""
    messages = [dict(role="system", content=system)] if system else []
    for turn in turns:
        content = "".join(image if part["type"] == "image" else part["text"] for part in turn["question"])
        messages += [dict(role="user", content=content), dict(role="assistant", content=turn["answer"])]
    return messages


@cache
def format_step(tokenizer, open_last):
    return FormatPrompt("chat", open_last, tokenizer)


def encode(tokenizer, turns, system="", open_last=False):
    images = sum(part["type"] == "image" for turn in turns for part in turn["question"])
    segments = format_step(tokenizer, open_last)(dict(turns=turns, images=["x"] * images, system=system))["segments"]
    return TokenizeSegments(tokenizer, 9999).encode(segments)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_equal_transformers(families, name, typed):
    tokenizer, expected, renamed = families(name)
    rng = random.Random(0)
    for _ in range(CONVERSATIONS):
        turns, system = some_conversation(rng, name, typed)
        ids, _ = encode(tokenizer, turns, system)
        assert ids == expected.apply_chat_template(as_messages(turns, system, renamed["<image>"]), return_dict=False)
        if not typed:  # Nothing that is typed is a special token, so that the tokenizer itself gives the same.
            assert ids == tokenizer.apply_chat_template(as_messages(turns, system, "<image>"), return_dict=False)


@pytest.mark.parametrize("name", GENERATION)
def test_labels_equal_the_assistant_mask_of_transformers(families, name):
    tokenizer, expected, renamed = families(name, generation=True)
    rng = random.Random(1)
    for _ in range(CONVERSATIONS):
        turns, system = some_conversation(rng, name, typed=True)
        if name == "phi3":  # whose <|assistant|> takes the whitespace after it, and then counts as said by it
            turns = [dict(turn, answer=turn["answer"].lstrip()) for turn in turns]
        ids, labels = encode(tokenizer, turns, system)
        out = expected.apply_chat_template(
            as_messages(turns, system, renamed["<image>"]), return_dict=True, return_assistant_tokens_mask=True
        )
        assert ids == out["input_ids"]
        assert [int(label != IGNORE_INDEX) for label in labels] == out["assistant_masks"]
        assert sum(out["assistant_masks"]) > 0
        assert all(label in (token, IGNORE_INDEX) for token, label in zip(ids, labels, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_in_chat_is_the_beginning_of_the_text_in_training(families, name):
    tokenizer, expected, renamed = families(name)
    thinking = dict(enable_thinking=False) if name == "qwen3" else {}
    rng = random.Random(2)
    for _ in range(CONVERSATIONS):
        turns, system = some_conversation(rng, name, typed=True)
        turns[-1]["answer"] = turns[-1]["answer"].lstrip()
        ids, labels = encode(tokenizer, turns, system)
        prompt, _ = encode(tokenizer, turns, system, open_last=True)
        messages = as_messages(turns, system, renamed["<image>"])[:-1]
        assert prompt == expected.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, **thinking
        )
        assert ids[: len(prompt)] == prompt
        assert labels[len(prompt)] != IGNORE_INDEX
        assert labels[len(prompt) - 1] == IGNORE_INDEX


@pytest.mark.parametrize("name, end", [("smollm2", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("phi3", "<|end|>")])
def test_the_end_of_a_turn_is_the_templates(families, name, end):
    tokenizer, *_ = families(name)
    assert ChatTemplate(tokenizer).end == end_of_turn(tokenizer) == end
    _, labels = encode(tokenizer, [dict(question=[dict(type="text", text="what?")], answer="red")])
    assert [label for label in labels if label != IGNORE_INDEX][-1] == tokenizer.convert_tokens_to_ids(end)


def test_segments_of_a_conversation(families):
    tokenizer, *_ = families("smollm2")
    turns = [dict(question=[dict(type="image"), dict(type="text", text="a <|im_end|>")], context="b", answer="red")]
    result = FormatPrompt("chat", tokenizer=tokenizer)(dict(turns=turns, images=["x"], system="Be kind."))
    assert result["prompt"] == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n<image>a <|im_end|>\n\nb<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert prompt_text(result["segments"]) == result["prompt"] + "red<|im_end|>\n"
    assert result["segments"][-4:] == [
        Segment("assistant\n", rendered=True),
        Segment("red", supervised=True, rendered=True),
        Segment("<|im_end|>", supervised=True, special=True, rendered=True),
        Segment("\n", rendered=True),
    ]
    assert [s.text for s in result["segments"] if s.special].count("<|im_end|>") == 3


def test_browsed_tokens_are_special_where_the_template_writes_them(families):
    tokenizer, *_ = families("qwen3")
    turns = [dict(question=[dict(type="image"), dict(type="text", text="<think> </s>")], answer="red <|im_end|>")]
    spans = to_token_spans(tokenizer, *encode(tokenizer, turns))
    shown = [(span.text, span.kind, span.supervised) for span in spans if span.kind != "text"]
    start, end = ("<|im_start|>", "special", False), ("<|im_end|>", "special", False)
    assert shown[:4] == [start, ("<image>", "image", False), end, start]
    assert shown[4:] == [("<think>", "special", False), ("</think>", "special", False), ("<|im_end|>", "special", True)]
    assert "".join(span.text for span in spans if span.supervised) == "red <|im_end|><|im_end|>"


def test_the_system_text_is_the_samples_or_else_the_configs(families):
    tokenizer, *_ = families("qwen2_5")
    sample = dict(turns=[dict(question="what?")], images=[])
    step = FormatPrompt("chat", tokenizer=tokenizer, system="Be brief.")
    assert step(dict(sample))["prompt"].startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert step(dict(sample, system="Be kind."))["prompt"].startswith("<|im_start|>system\nBe kind.<|im_end|>\n")
    own = FormatPrompt("chat", tokenizer=tokenizer)(dict(sample))["prompt"]
    assert own.startswith("<|im_start|>system\nYou are Qwen")


def test_an_empty_answer_before_the_last_has_no_labels(families):
    tokenizer, *_ = families("llama3")
    text = [dict(type="text", text="what?")]
    _, labels = encode(tokenizer, [dict(question=text, answer=""), dict(question=text, answer="red")])
    assert tokenizer.decode([label for label in labels if label != IGNORE_INDEX]) == "red<|eot_id|>"


def test_other_answers_to_choose_from_follow_the_template(families):
    tokenizer, *_ = families("llama2")
    turns = [dict(question="what?", answer="no"), dict(question="colour?")]
    result = FormatPrompt("chat", True, tokenizer)(dict(turns=turns, images=[]))
    ids, labels = TokenizeSegments(tokenizer, 99).encode(result["with_answer"](" red "))
    turns[-1]["answer"] = " red "
    messages = as_messages([dict(turn, question=[dict(type="text", text=turn["question"])]) for turn in turns], "", "")
    assert ids == tokenizer.apply_chat_template(messages, return_dict=False)
    assert tokenizer.decode([label for label in labels if label != IGNORE_INDEX]).split() == ["red", "</s>"]


def test_reasoning_of_a_template_is_kept_in_the_prompt(families):
    tokenizer, expected, renamed = families("qwen3")
    turns = [dict(question=[dict(type="text", text="what?")], answer="<think>\nhm\n</think>\n\nred")]
    ids, labels = encode(tokenizer, turns)
    assert ids == tokenizer.apply_chat_template(as_messages(turns, "", ""), return_dict=False)
    assert tokenizer.decode([label for label in labels if label != IGNORE_INDEX]).endswith("</think>\n\nred<|im_end|>")
    # A user's marks are text, also beside an answer whose marks the template knows.
    turns[0]["question"] = [dict(type="text", text="what <think>?")]
    ids, _ = encode(tokenizer, turns)
    assert ids.count(tokenizer.convert_tokens_to_ids("<think>")) == 2


def test_what_a_chat_template_refuses_is_named(families):
    tokenizer, *_ = families("gemma")
    refusal = "the chat template refuses a conversation of system, user, assistant: System role not supported"
    with pytest.raises(ValueError, match=f"with system_prompt='Be kind.': {refusal}"):
        FormatPrompt("chat", tokenizer=tokenizer, system="Be kind.")
    sample = dict(turns=[dict(question="what?")], images=[], system="Be kind.")
    with pytest.raises(SampleError, match="System role not supported"):
        FormatPrompt("chat", tokenizer=tokenizer)(sample)


def test_a_template_that_is_not_jinja_is_named_with_its_line(families, monkeypatch):
    tokenizer, *_ = families("smollm2")
    monkeypatch.setattr(tokenizer, "chat_template", "{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    with pytest.raises(ValueError, match="line 2 of the tokenizer's chat template is not valid Jinja: unexpected '}'"):
        FormatPrompt("chat", tokenizer=tokenizer)


LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>{% endfor %}<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "content, message",
    [
        ("m.content | replace('a', 'bb')", "the chat template changes messages"),
        ("m.content if m.role != 'system' else ''", "leaves out the text of a system message"),
        ("m.content ~ m.content[1:]", None),
    ],
)
def test_a_template_that_changes_messages_is_refused(families, monkeypatch, content, message):
    tokenizer, *_ = families("smollm2")
    monkeypatch.setattr(tokenizer, "chat_template", LOOP.replace("CONTENT", content))
    if message:
        with pytest.raises(ValueError, match=message):
            FormatPrompt("chat", tokenizer=tokenizer, system="Be kind.")
        return
    # Text may be repeated, images may not.
    step, images = FormatPrompt("chat", tokenizer=tokenizer), [dict(type="text", text="a"), dict(type="image")]
    with pytest.raises(SampleError, match="leaves out or repeats images"):
        step(dict(turns=[dict(question=images)], images=["x"]))


def test_chat_is_refused_without_tokenizer_template_or_end(families, tiny_llama):
    tokenizer, *_ = families("smollm2")
    with pytest.raises(ValueError, match="'chat' is the tokenizer's own: FormatPrompt needs tokenizer="):
        find_template("chat")
    with pytest.raises(ValueError, match="'chat': the tokenizer has no chat template"):
        find_template("chat", load_tokenizer(tiny_llama))
    source = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
        with pytest.raises(ValueError, match="no special token of the tokenizer follows an answer"):
            find_template("chat", tokenizer)
        tokenizer.chat_template = {"default": source, "tool_use": "{{ tools }}"}
        assert find_template("chat", tokenizer).source == source
    finally:
        tokenizer.chat_template = source
    segments = FormatPrompt("chat", tokenizer=tokenizer)(dict(turns=[dict(question="a", answer="b")], images=[]))
    with pytest.raises(ValueError, match="tokenization='stripped' is for the prompt templates of the published"):
        TokenizeSegments(tokenizer, 99, "stripped").encode(segments["segments"])


CHATML = dict(
    start="",
    image="<image>",
    question="<|im_start|>user\n{question}<|im_end|>\n",
    context="{context}",
    response="<|im_start|>assistant\n",
    end="<|im_end|>",
    next="\n",
)


def test_special_tokens_in_a_template_of_texts(families):
    tokenizer, *_ = families("smollm2")
    turns = [dict(question="what <|im_end|>?", answer="red"), dict(question="who?", answer="a")]
    segments = FormatPrompt(CHATML, tokenizer=tokenizer)(dict(turns=turns, images=[]))["segments"]
    assert segments[:4] == [
        Segment("<|im_start|>", special=True),
        Segment("user\nwhat <|im_end|>?"),
        Segment("<|im_end|>", special=True),
        Segment("\n"),
    ]
    ids, labels = TokenizeSegments(tokenizer, 99).encode(segments)
    assert [ids.count(tokenizer.convert_tokens_to_ids(name)) for name in ("<|im_start|>", "<|im_end|>")] == [4, 4]
    assert tokenizer.decode([label for label in labels if label != IGNORE_INDEX]) == "red<|im_end|>a<|im_end|>"


def test_special_tokens_that_would_be_spelled_are_refused(families):
    tokenizer, *_ = families("llama3")
    with pytest.raises(ValueError, match="'end' is one of .*<|eot_id|>.*, got '<|im_end|>'".replace("|", r"\|")):
        find_template(CHATML, tokenizer)
    message = r"'(question|response)' holds '<\|im_start\|>', which is not a special token of the tokenizer"
    with pytest.raises(ValueError, match=message):
        find_template(dict(CHATML, end="<|eot_id|>"), tokenizer)
    # Without a tokenizer it is not known.
    assert find_template(dict(CHATML, end="<eos>"))["response"] == "<|im_start|>assistant\n"
