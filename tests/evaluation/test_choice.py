"""Reading a choice out of free text, and the score of multiple choice."""

import re

import pytest

from mmgpt.evaluation.metrics.choice import choice_score, read_choice

ANIMALS = ["a cat", "a dog", "a cow"]


@pytest.mark.parametrize(
    "text, index",
    [
        ("a dog", 1),
        ("A dog.", 1),
        (" a dog\n", 1),
        ("The answer is a dog.", 1),
        ("The answer is a dog. Because it barks. A cat does not.", 1),
        ("It barks. So the correct answer is: a dog", 1),
        ("B", 1),
        ("B.", 1),
        ("(B)", 1),
        ("B:", 1),
        ("B. a dog", 1),
        ("(B) a cat", 1),
        ("B) a dog", 1),
        ("The answer is B.", 1),
        ("The answer is B", 1),
        ("C", 2),
        ("D", None),
        ("b", None),
        ("dog", None),
        ("A cat and a dog", None),
        ("a cat, not a dog", None),
        ("", None),
        ("The answer is ", None),
    ],
)
def test_a_choice_is_named_by_its_text_or_its_letter(text, index):
    assert read_choice(text, ANIMALS) == index


def test_case_counts_where_choices_differ_in_case_only():
    assert [read_choice(text, ["Gg", "gg", "GG"]) for text in ("Gg", "gg", "GG", "gG")] == [0, 1, 2, None]


def test_text_comes_before_letters():
    assert read_choice("A", ["B", "A"]) == 1
    assert read_choice("B", ["B cell", "T cell"]) == 1


def test_a_choice_that_is_offered_twice_is_read_by_its_letter():
    assert read_choice("red", ["red", "blue", "red"]) is None
    assert read_choice("C", ["red", "blue", "red"]) == 2


def llava_reads(text, choices):
    """The index that LLaVA's eval_science_qa.py reads from an answer, or -1."""
    letters = "ABCDE"[: len(choices)]
    match = re.fullmatch(r"\s*([A-E])\s*", text) or re.match(r"([A-E])\. ", text)
    match = match or re.search(r"The answer is ([A-E])\.", text) or re.search(r"The answer is ([A-E])", text)
    return letters.index(match[1]) if match and match[1] in letters else -1


@pytest.mark.parametrize(
    "text", ["A", " C", "B. a dog", "The answer is C.", "It purrs. The answer is A", "E", "The answer is E.", "none"]
)
def test_letters_are_read_as_llava_reads_them(text):
    index = read_choice(text, ANIMALS)
    assert (-1 if index is None else index) == llava_reads(text, ANIMALS)


def test_only_the_correct_choice_scores():
    sample = {"choices": ANIMALS, "answer": "a dog"}
    assert [choice_score(sample | {"prediction": text}) for text in ("a dog", "B", "a cat", "dog")] == [1, 1, 0, 0]


@pytest.mark.parametrize("choices", [[], None])
def test_an_empty_list_of_choices_is_refused(choices):
    sample = {"id": "q7", "dataset": "aokvqa", "choices": choices, "answer": "a dog", "prediction": "a dog"}
    with pytest.raises(ValueError, match="dataset 'aokvqa', id 'q7'.*'a dog', but the list of its choices is empty"):
        choice_score(sample)


@pytest.mark.parametrize("answer", ["a horse", "", None])
def test_a_right_answer_outside_the_choices_is_refused(answer):
    sample = {"id": "q7", "dataset": "aokvqa", "choices": ANIMALS, "answer": answer, "prediction": "a dog"}
    with pytest.raises(ValueError, match="id 'q7': the right answer is .* not among its choices"):
        choice_score(sample)
