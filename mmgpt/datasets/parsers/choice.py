"""Questions with choices: A-OKVQA, ScienceQA."""

from mmgpt.registry import PARSERS

from .fields import field, has, majority, name_of, optional_text, right_choice, text_list


@PARSERS.register_module(name="aokvqa")
def aokvqa(record: dict) -> dict:
    """A record of aokvqa_v1p0_{train,val,test}.json (arXiv:2206.01718).

    The image is the key `image` where there is one (MultiModal-GPT's copy), else COCO's file of 2017. The answer is
    the right choice; without one the direct answer that most annotators gave; without both (the test split) open.
    The tag `difficult_direct_answer` ('true' or 'false') tells which questions the direct answers are not judged of.
    """
    turn = {"question": field(record, "question").strip(), "answer": ""}
    for ours, theirs in (("answers", "direct_answers"), ("choices", "choices"), ("rationales", "rationales")):
        if record.get(theirs):
            turn[ours] = text_list(record, theirs)
    if record.get("correct_choice_idx") is not None:
        index = field(record, "correct_choice_idx", int)
        turn["answer"] = right_choice(text_list(record, "choices"), index, "correct_choice_idx")
    elif "answers" in turn:
        turn["answer"] = majority(turn["answers"])
    sample = {"id": name_of(record, "question_id"), "images": [_image(record)], "turns": [turn]}
    if has(record, "difficult_direct_answer"):
        difficult = field(record, "difficult_direct_answer", bool)
        sample["tags"] = {"difficult_direct_answer": str(difficult).lower()}
    return sample


@PARSERS.register_module(name="scienceqa")
def scienceqa(record: dict, split: str | None = None) -> dict | None:
    """A record of ScienceQA's problems.json, an object by id (arXiv:2209.09513; github.com/lupantech/ScienceQA).

    Its hint becomes the context of the question; lecture and solution are not shown. The image, where there is one,
    is '<split>/<id>/<image>'. Tags as its evaluate_acc.py groups questions: `subject`; `grade` '1-6' or '7-12';
    `context` a list of 'text' and 'image', or 'none'.

    Args:
        record: `id`, `question`, `choices`, `answer` (index), `hint`, `image` (or null), `subject`, `grade`, `split`.
        split: 'train', 'val' or 'test' keeps only that split of the one file: None for any other record.
    """
    if split is not None and field(record, "split") != split:
        return None
    choices, image = text_list(record, "choices"), record.get("image")
    hint = optional_text(record, "hint").strip()
    turn = {"question": field(record, "question").strip(), "choices": choices}
    turn["answer"] = right_choice(choices, field(record, "answer", int), "answer")
    if hint:
        turn["context"] = hint
    return {
        "id": field(record, "id"),
        "images": [f"{field(record, 'split')}/{record['id']}/{field(record, 'image')}"] if image else [],
        "turns": [turn],
        "tags": {
            "subject": field(record, "subject"),
            "grade": _grades(field(record, "grade")),
            "context": [kind for kind, given in (("text", hint), ("image", image)) if given] or "none",
        },
    }


def _grades(grade: str) -> str:
    number = grade.removeprefix("grade")
    if not number.isdecimal():
        raise ValueError(f"key 'grade' must be 'grade1' to 'grade12', got {grade!r:.80}")
    return "1-6" if int(number) < 7 else "7-12"


def _image(record: dict) -> str:
    if has(record, "image"):
        return field(record, "image")
    return f"{field(record, 'split')}2017/{field(record, 'image_id', int):012d}.jpg"
