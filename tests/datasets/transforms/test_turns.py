import numpy as np
import pytest

from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content
from mmgpt.datasets.transforms import (
    AddQuestion,
    AskQuestion,
    GiveReason,
    JoinAnswers,
    OfferOptions,
    PickAnswer,
    PickImage,
    PickTurn,
)


def results(*turns, seed=0):
    return {"turns": [dict(turn) for turn in turns], "rng": np.random.default_rng(seed)}


def outcomes(transform, *turns, of=lambda turns: turns[0]["answer"]):
    return [of(transform(results(*turns, seed=seed))["turns"]) for seed in range(60)]


def test_same_seed_same_choice():
    turn = {"question": "", "answers": ["a", "b", "c"]}
    assert outcomes(PickAnswer(), turn) == outcomes(PickAnswer(), turn)


def test_pick_answer():
    assert set(outcomes(PickAnswer(), {"question": "", "answers": ["a", "b", "c"]})) == {"a", "b", "c"}
    assert PickAnswer()(results({"question": "", "answer": "x"}))["turns"][0]["answer"] == "x"


def test_pick_turn():
    turns = [{"question": "1", "answer": "a"}, {"question": "2", "answer": "b"}]
    assert set(outcomes(PickTurn(), *turns)) == {"a", "b"}
    assert len(PickTurn()(results(*turns))["turns"]) == 1


def test_join_answers():
    turn = {"question": "", "answers": ["a", "b", "c"]}
    joined = outcomes(JoinAnswers(2, separator=". "), turn)
    assert len(set(joined)) == 6
    assert all(len(set(text.split(". "))) == 2 for text in joined)
    assert sorted(JoinAnswers(9)(results(turn))["turns"][0]["answer"].split()) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="count=0"):
        JoinAnswers(0)


def test_pick_image():
    images = ["1.png", "2.png", "3.png"]
    picked = [PickImage()(results(seed=seed) | {"images": list(images)})["images"] for seed in range(60)]
    assert {len(names) for names in picked} == {1}
    assert {names[0] for names in picked} == set(images)
    assert PickImage()(results() | {"images": []})["images"] == []


def test_add_question_follows_the_statement():
    add = AddQuestion(["Is that so?", "True?"])
    said = outcomes(add, {"question": "It rains."}, of=lambda turns: turns[0]["question"])
    assert set(said) == {"It rains. Is that so?", "It rains. True?"}


def test_ask_question_fills_only_empty_questions():
    ask = AskQuestion(["what?", "which?"])
    assert set(outcomes(ask, {"question": ""}, of=lambda t: t[0]["question"])) == {"what?", "which?"}
    assert ask(results({"question": "mine"}))["turns"][0]["question"] == "mine"
    filled = AskQuestion(["what?"])(results({"question": [IMAGE_CONTENT]}))["turns"][0]["question"]
    assert filled == [IMAGE_CONTENT, text_content("what?")]


@pytest.mark.parametrize("transform", [AddQuestion, AskQuestion, GiveReason])
def test_questions_must_be_a_list(transform):
    for wrong in ([], "what?"):
        with pytest.raises(ValueError, match="at least one wording"):
            transform(wrong)


CHOICE = {
    "question": "what?",
    "answer": "b",
    "choices": ["a", "b"],
    "rationales": ["It flies.", "It sings", "It flies."],
}


def test_offer_options_are_in_the_question():
    offered = outcomes(OfferOptions(0.5), CHOICE, of=lambda t: t[0]["question"])
    assert set(offered) == {"what?", "what? Options: a, b."}
    assert 15 < offered.count("what?") < 45
    assert set(outcomes(OfferOptions(), CHOICE, of=lambda t: t[0]["question"])) == {"what? Options: a, b."}
    assert set(outcomes(OfferOptions(0), CHOICE, of=lambda t: t[0]["question"])) == {"what?"}
    assert OfferOptions()(results({"question": "free?"}))["turns"][0]["question"] == "free?"
    with pytest.raises(ValueError, match="prob=2"):
        OfferOptions(2)


def test_give_reason_extends_question_and_answer():
    [turn] = GiveReason(["Why?"])(results(CHOICE))["turns"]
    assert turn["question"] == "what? Why?"
    assert turn["answer"] == "The answer is b. Because It flies. It sings."
    assert turn["answers"] == [turn["answer"]]
    assert set(outcomes(GiveReason(["Why?"], prob=0), CHOICE)) == {"b"}
    assert GiveReason(["Why?"])(results({"question": "what?", "answer": "b"}))["turns"][0]["answer"] == "b"
    both = GiveReason(["Why?"])(OfferOptions()(results(CHOICE)))["turns"][0]["question"]
    assert both == "what? Options: a, b. Why?"
