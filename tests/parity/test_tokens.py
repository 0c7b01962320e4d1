"""Token ids and labels of the published code, and where ours differ on purpose."""

import pytest
import torch

from mmgpt.datasets.collate import collate_conversations
from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content
from mmgpt.datasets.prompts import EOS, IMAGE, TEMPLATES, Segment, format_turns
from mmgpt.datasets.segments import prompt_text
from mmgpt.models.tokenizer import PAD_TOKEN
from mmgpt.registry import TRANSFORMS
from tests.helpers.parity_data import PARITY, read_json

TOKENS = read_json("tokens/tokenize.json") or {"tokenize_cases": [], "raw": [], "collater": [], "special_ids": {}}
CASES = {case["name"]: case for case in TOKENS["tokenize_cases"]}
PROMPTS = {f"{case['name']} {case['buffer_size']}": case for case in read_json("tokens/app_prompts.json") or []}
DATASETS = {path.parent.name: read_json(path)["items"] for path in sorted(PARITY.glob("datasets/*/expected.json"))}
ADDED = [name for name in TOKENS["special_ids"] if name.startswith("<")]
NAMED = read_json("llama/tokenizer_config.json") or {"bos_token": "", "eos_token": ""}
LIMIT = max((len(case["input_ids"]) for case in CASES.values()), default=0)  # none is longer, one was cut


def text_of(token):
    return token if isinstance(token, str) else token["content"]


# The published code gave the ids of these also when they stood in somebody's text.
TYPED = {text_of(NAMED["bos_token"]), text_of(NAMED["eos_token"]), PAD_TOKEN, *ADDED}


def holds_typed(text):
    """Whether a text holds special tokens; in a prompt, `<image>` is a place of an image."""
    return any(name in text.replace(IMAGE, "") for name in TYPED)


def has_typed(case):
    return holds_typed(case["instruction"] + case["answer"]) or IMAGE in case["answer"]


def is_dialogue(item):
    return isinstance(item["instruction"], list)


def whole_dialogues(name):
    """The dialogues whose turns can be told apart: those of LLaVA fell into characters, a defect."""
    dialogues = [item for item in DATASETS[name] if is_dialogue(item)]
    whole = [item for item in dialogues if any(len(text) > 1 for text in item["instruction"])]
    if not whole:
        pytest.skip("instructions and answers are lists of characters: the turns of a dialogue cannot be told apart")
    return whole


def turns_of(dialogue):
    pairs = zip(dialogue["instruction"], dialogue["answer"], strict=True)
    return [{"instruction": instruction, "answer": answer} for instruction, answer in pairs]


def prompt_segments(text):
    """A published prompt, where each `<image>` is one."""
    first, *others = text.split(IMAGE)
    return [Segment(first), *(s for text in others for s in (Segment(IMAGE, special=True), Segment(text)))]


def turn_segments(case):
    answer = [Segment(case["answer"], supervised=True), Segment(EOS, supervised=True, special=True)]
    return prompt_segments(case["instruction"]) + answer


@pytest.fixture(scope="module")
def tokenize(pipelines):
    return TRANSFORMS.build(pipelines.answer_steps[1] | dict(max_length=LIMIT))


def assert_same_turn(tokenize, case):
    ids, labels = tokenize.encode(turn_segments(case))
    assert ids[:LIMIT] == case["input_ids"]
    assert labels[:LIMIT] == case["labels"]


def assert_typed_stay_text(tokenize, case):
    ids, labels = tokenize.encode(turn_segments(case))
    tokenizer, images = tokenize.tokenizer, case["instruction"].count(IMAGE)
    special = [token for token in ids if token in tokenizer.all_special_ids]
    assert special == [tokenizer.bos_token_id, *[tokenize.special[IMAGE]] * images, tokenizer.eos_token_id]
    answer = tokenizer.decode([label for label in labels if label != -100][:-1])
    assert answer.strip() == case["answer"].strip()


def test_special_ids(tokenize):
    ids, tokenizer = TOKENS["special_ids"], tokenize.tokenizer
    own = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    added = {name: tokenizer.convert_tokens_to_ids(name) for name in ADDED}
    assert own | added | {"len": len(tokenizer)} == ids
    assert IMAGE in added


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not has_typed(case)])
def test_a_turn(tokenize, name):
    assert_same_turn(tokenize, CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if has_typed(case)])
def test_special_tokens_in_a_text_stay_text(tokenize, name):
    assert_typed_stay_text(tokenize, CASES[name])


def finish(tokenize, segments):
    """What the pipeline makes of a turn: None when it leaves it out."""
    return tokenize(dict(segments=segments, open=False))


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case["labels"].count(-100) == len(case["labels"])])
def test_an_instruction_that_leaves_nothing_to_learn_is_left_out(tokenize, name):
    assert finish(tokenize, turn_segments(CASES[name])) is None


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case["answer"]])
def test_a_turn_without_an_answer_is_left_out(tokenize, name):
    """The published code learned to say nothing; in the instruction datasets it is an answer that is missing."""
    turns = [{"question": CASES[name]["instruction"], "answer": CASES[name]["answer"]}]
    assert finish(tokenize, format_turns(TEMPLATES["instruction"], turns)) is None


@pytest.mark.parametrize("case", [case for case in TOKENS["raw"] if not holds_typed(case["text"])])
def test_a_text(tokenize, case):
    assert tokenize.encode(prompt_segments(case["text"]))[0] == case["with_special"]


@pytest.mark.parametrize("case", TOKENS["raw"])
def test_ids_to_text(tokenize, case):
    assert tokenize.tokenizer.decode(case["with_special"], skip_special_tokens=True) == case["decode_skip"]


@pytest.mark.parametrize("expected", TOKENS["collater"])
def test_a_batch(expected):
    rows = [{key: torch.tensor(CASES[name][key]) for key in ("input_ids", "labels")} for name in expected["cases"]]
    rows = [row | dict(pixels=None, source="", meta={}) for row in rows]
    batch = collate_conversations(rows, TOKENS["special_ids"]["pad"], expected["side"])
    for key in ("input_ids", "labels", "attention_mask"):
        assert batch[key].tolist() == expected[key]


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_of_the_demo(tokenize, name):
    ids, labels = tokenize.encode(prompt_segments(PROMPTS[name]["prompt"]))
    assert ids == PROMPTS[name]["input_ids"]
    assert set(labels) == {-100}
    assert ids.count(tokenize.special[IMAGE]) == PROMPTS[name]["n_image_tokens"]


def demo_turns(case):
    """What the demo keeps of a history: all turns, or the last one and `buffer_size` before it."""
    said = [text for _, text in case["history"]]
    turns = []
    for asked, answer in zip(said[::2], said[1::2], strict=True):
        text, *images = [asked] if isinstance(asked, str) else asked
        turns.append({"question": [IMAGE_CONTENT] * len(images) + [text_content(text)], "answer": answer or ""})
    return turns[-1 - case["buffer_size"] :] if case["buffer_size"] >= 0 else turns


@pytest.mark.parametrize("name", PROMPTS)
def test_our_prompt_is_the_one_of_the_demo(tokenize, name):
    """But for the ends of answers: the demo left them out, although the weights were trained with them."""
    turns = demo_turns(PROMPTS[name])
    segments = format_turns(TEMPLATES["instruction"], turns, open_last=True)
    assert prompt_text(segments).replace(EOS, "") == PROMPTS[name]["prompt"]
    if len(turns) == 1:
        assert tokenize.encode(segments)[0] == PROMPTS[name]["input_ids"]


@pytest.mark.parametrize("name", [n for n, items in DATASETS.items() if not all(map(is_dialogue, items))])
def test_the_turns_of_a_dataset(tokenize, name):
    for item in DATASETS[name]:
        if not is_dialogue(item):
            (assert_typed_stay_text if has_typed(item) else assert_same_turn)(tokenize, item)


@pytest.mark.parametrize("name", [name for name, items in DATASETS.items() if any(map(is_dialogue, items))])
def test_the_turns_of_the_dialogues_of_a_dataset(tokenize, name):
    for item in whole_dialogues(name):
        if any(map(has_typed, turns_of(item))):
            continue  # other ids by design, see test_special_tokens_in_a_text_stay_text
        encoded = [tokenize.encode(turn_segments(turn)) for turn in turns_of(item)]
        for key, rows in zip(("input_ids", "labels"), zip(*encoded, strict=True), strict=False):
            assert [value for row in rows for value in row[:LIMIT]] == item[key]


@pytest.mark.parametrize("name", [name for name, items in DATASETS.items() if any(map(is_dialogue, items))])
def test_a_dialogue_has_one_start(tokenize, name):
    """The published code put one before every turn, unlike in chat; all else of a dialogue is the same."""
    for item in whole_dialogues(name):
        turns = [turn_segments(turn) for turn in turns_of(item)]
        ids, labels = tokenize.encode([segment for turn in turns for segment in turn])
        alone = [tokenize.encode(turn) for turn in turns]
        assert ids == ids[:1] + [token for row, _ in alone for token in row[1:]]
        assert labels == labels[:1] + [label for _, row in alone for label in row[1:]]
