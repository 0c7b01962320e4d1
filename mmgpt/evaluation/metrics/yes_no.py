"""Yes or no in free text, and the scores of POPE (arXiv:2305.10355)."""

from collections.abc import Sequence

from mmgpt.utils.errors import SampleError, SampleLocation


def says_yes(text: str) -> bool:
    """Whether a text says yes by POPE's rule: its first sentence has none of the words No, no, not.

    Source: github.com/AoiDragon/POPE, evaluate.py. Words are what spaces separate, once commas are taken out.
    """
    return not {"No", "no", "not"} & set(text.split(".")[0].replace(",", "").split(" "))


def is_yes(sample: dict) -> bool:
    """Whether the right answer is yes; a ValueError names a sample where it is neither yes nor no."""
    answer = str(sample.get("answer")).casefold()
    if answer not in ("yes", "no"):
        reason = f"the right answer must be yes or no, got {sample.get('answer')!r}"
        raise SampleError(reason, SampleLocation.of(sample))
    return answer == "yes"


def judge_yes_no(sample: dict) -> dict:
    """What is kept of a sample: ``said`` and ``true``, both bool, and as ``score`` whether they are the same.

    An answer other than yes or no is a ValueError.
    """
    said, true = says_yes(sample["prediction"]), is_yes(sample)
    return {"said": said, "true": true, "score": float(said == true)}


def yes_no_scores(rows: Sequence[dict]) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of the answer yes, and how often yes was said, in percent.

    A share of nothing, such as precision when yes was never said, is 0.
    """
    said, true = sum(row["said"] for row in rows), sum(row["true"] for row in rows)
    hits = sum(row["said"] and row["true"] for row in rows)
    shares = {
        "accuracy": (sum(row["said"] == row["true"] for row in rows), len(rows)),
        "precision": (hits, said),
        "recall": (hits, true),
        "F1": (2 * hits, said + true),
        "yes": (said, len(rows)),
    }
    return {name: 100 * part / whole if whole else 0.0 for name, (part, whole) in shares.items()}
