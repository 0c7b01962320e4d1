"""Parsers of questions with choices: A-OKVQA, ScienceQA."""

from mmgpt.registry import PARSERS

from .fields import field, has, majority, name_of, optional_text, right_choice, text_list


@PARSERS.register_module(name="aokvqa")
def aokvqa(record: dict) -> dict:
    """Record of aokvqa_v1p0_{train,val,test}.json (arXiv:2206.01718).

    The image is that of the key `image` if the record has one (MultiModal-GPT's copy), else COCO's file of 2017. The
    answer is the right choice; without one the direct answer that most annotators gave; without both (test split)
    empty. The tag `difficult_direct_answer` ('true' or 'false') marks questions whose direct answers are not evaluated.
    """
    if has(record, "image"):
        image = field(record, "image")
    else:
        image = f"{field(record, 'split')}2017/{field(record, 'image_id', int):012d}.jpg"
    turn = {"question": field(record, "question").strip(), "answer": ""}
    for key, record_key in (("answers", "direct_answers"), ("choices", "choices"), ("rationales", "rationales")):
        if record.get(record_key):
            turn[key] = text_list(record, record_key)
    if record.get("correct_choice_idx") is not None:
        index = field(record, "correct_choice_idx", int)
        turn["answer"] = right_choice(text_list(record, "choices"), index, "correct_choice_idx")
    elif "answers" in turn:
        turn["answer"] = majority(turn["answers"])
    sample = {"id": name_of(record, "question_id"), "images": [image], "turns": [turn]}
    if has(record, "difficult_direct_answer"):
        difficult = field(record, "difficult_direct_answer", bool)
        sample["tags"] = {"difficult_direct_answer": str(difficult).lower()}
    return sample


@PARSERS.register_module(name="scienceqa")
def scienceqa(record: dict, split: str | None = None) -> dict | None:
    """Record of ScienceQA's problems.json, an object by id (arXiv:2209.09513; github.com/lupantech/ScienceQA).

    The hint becomes the context of the question; lecture and solution are not used. The image, if there is one, is
    '<split>/<id>/<image>'. The tags are those by which its evaluate_acc.py groups questions: `subject`; `grade` '1-6'
    or '7-12'; `context` a list of 'text' and 'image', or 'none'.

    Args:
        record: `id`, `question`, `choices`, `answer` (index), `hint`, `image` (or null), `subject`, `grade`, `split`.
        split: 'train', 'val' or 'test'; None is returned for records of the file's other splits.
    """
    if split is not None and field(record, "split") != split:
        return None
    choices, image = text_list(record, "choices"), record.get("image")
    grade = field(record, "grade").removeprefix("grade")
    if not grade.isdecimal():
        raise ValueError(f"key 'grade' must be 'grade1' to 'grade12', got {record['grade']!r:.80}")
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
            "grade": "1-6" if int(grade) < 7 else "7-12",
            "context": [kind for kind, value in (("text", hint), ("image", image)) if value] or "none",
        },
    }
