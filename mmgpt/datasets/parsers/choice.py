"""Questions with choices: A-OKVQA."""

from mmgpt.registry import PARSERS

from .fields import field, majority, text_list


@PARSERS.register_module(name="aokvqa")
def aokvqa(record: dict) -> dict:
    """A record of aokvqa_v1p0_{train,val,test}.json (arXiv:2206.01718).

    The image is the key `image` where there is one (MultiModal-GPT's copy), else COCO's file of 2017. The answer is
    the right choice; without one the direct answer that most annotators gave; without both (the test split) open.
    """
    turn = {"question": field(record, "question").strip(), "answer": ""}
    for ours, theirs in (("answers", "direct_answers"), ("choices", "choices"), ("rationales", "rationales")):
        if record.get(theirs):
            turn[ours] = text_list(record, theirs)
    if record.get("correct_choice_idx") is not None:
        turn["answer"] = _right_choice(field(record, "correct_choice_idx", int), text_list(record, "choices"))
    elif "answers" in turn:
        turn["answer"] = majority(turn["answers"])
    return {"id": str(record.get("question_id", "")), "images": [_image(record)], "turns": [turn]}


def _right_choice(index: int, choices: list[str]) -> str:
    if not 0 <= index < len(choices):
        raise ValueError(f"correct_choice_idx {index} with {len(choices)} choices")
    return choices[index]


def _image(record: dict) -> str:
    if "image" in record:
        return field(record, "image")
    return f"{field(record, 'split')}2017/{field(record, 'image_id', int):012d}.jpg"
