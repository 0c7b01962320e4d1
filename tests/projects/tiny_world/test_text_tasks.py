"""The tiny world's tasks on text: correct answers, and a held-out split by content."""

import random
import re

import pytest
from generator import text_tasks
from generator.questions import FAMILIES, ask_count, ask_yes_no
from generator.statements import absent_pair
from generator.vocabulary import COLOURS, NUMBERS, UNSEEN_PAIRS

ORDINALS = ("first", "second", "third")


def draws(task, split, count=400):
    rng = random.Random(f"{task.__name__} {split}")
    return [text_tasks.draw_task(task, split, rng) for _ in range(count)]


def solve_dolly(question, words):
    if found := re.fullmatch(r"What is the (\w+) word\?", question):
        return words[-1] if found[1] == "last" else words[ORDINALS.index(found[1])]
    if found := re.fullmatch(r"How many times does the word (\w+) occur\?", question):
        return NUMBERS[words.count(found[1])]
    [twice] = {word for word in words if words.count(word) == 2}
    return twice


def solve_alpaca(instruction, words):
    if found := re.fullmatch(r"Replace (\w+) by (\w+)\.", instruction):
        return [found[2] if word == found[1] else word for word in words]
    if "odd one out" in instruction:
        return [word for word in words if words.count(word) == 1]
    return words if "Repeat" in instruction else words[::-1]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_dolly_answers_follow_from_the_context(split):
    for record in draws(text_tasks.dolly, split):
        assert record["response"] == solve_dolly(record["instruction"], record["context"].split()), record


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_alpaca_answers_follow_from_the_input(split):
    for record in draws(text_tasks.alpaca, split):
        assert record["output"].split() == solve_alpaca(record["instruction"], record["input"].split()), record


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_baize_asks_for_an_earlier_fact(split):
    for record in draws(text_tasks.baize, split):
        assert record["input"].count("[|Human|]") == record["input"].count("[|AI|]") + 1
        told = dict(re.findall(r"My (\w+) is (\w+)\.", record["input"]))
        asked, answer = re.search(r"What was my (\w+)\?\n\[\|AI\|\] (\w+)\n\[\|Human\|\] $", record["input"]).groups()
        assert len(told) in (2, 3)
        assert told[asked] == answer


@pytest.mark.parametrize("task", [text_tasks.dolly, text_tasks.alpaca, text_tasks.baize])
def test_held_out_tasks_are_not_among_the_training_tasks(task):
    train = {str(record) for record in draws(task, "train", 3000)}
    assert not train & {str(record) for record in draws(task, "heldout", 300)}


def test_words_belong_to_one_split():
    assert text_tasks.belongs("moon cat", "train") != text_tasks.belongs("moon cat", "heldout")
    assert text_tasks.belongs("moon cat", "train") == text_tasks.belongs("moon cat", "pretrain")


def thing(colour, shape, row=0, col=0):
    return dict(colour=colour, shape=shape, size="small", row=row, col=col)


def scene(*objects, split="train"):
    return dict(kind="shapes", split=split, dark=False, objects=list(objects))


def test_yes_and_no_are_equally_frequent_and_half_of_the_absent_share_something():
    rng = random.Random(0)
    shown = scene(thing("pink", "star"), thing("cyan", "square", 1, 1))
    answers = [ask_yes_no(shown, rng).answer for _ in range(2000)]
    assert 0.46 < answers.count("yes") / 2000 < 0.54
    absent = [absent_pair(shown, rng).split() for _ in range(2000)]
    near = sum(colour in ("pink", "cyan") or shape in ("star", "square") for colour, shape in absent)
    assert 0.46 < near / 2000 < 0.54


def test_training_never_names_an_unseen_pair_as_absent():
    rng = random.Random(0)
    names = {absent_pair(scene(thing("pink", "star")), rng) for _ in range(3000)}
    assert len(names) == 35
    assert not names & {" ".join(pair) for pair in UNSEEN_PAIRS}
    names = {absent_pair(scene(thing("pink", "star"), split="heldout"), rng) for _ in range(3000)}
    assert len(names) == 39


def test_counts_of_one_kind_are_spread_over_what_the_scene_allows():
    rng = random.Random(0)
    shown = scene(thing("pink", "star"), thing("pink", "square", 1, 1))
    asked = [ask_count(shown, rng) for _ in range(3000)]
    of_colour = [q.answer for q in asked if re.search(f"({'|'.join(COLOURS)}) shapes", q.text)]
    assert set(of_colour) == {"zero", "two"}
    assert 0.45 < of_colour.count("zero") / len(of_colour) < 0.55


def test_a_family_without_a_question_for_a_scene_gives_none():
    twins = scene(thing("pink", "star"), thing("pink", "cross", 1, 1))
    rng = random.Random(0)
    assert FAMILIES["shape"](twins, rng) is None
    assert FAMILIES["colour"](twins, rng).answer == "pink"
    assert FAMILIES["relation"](scene(thing("pink", "star")), rng) is None
