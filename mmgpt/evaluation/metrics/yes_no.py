"""Yes-or-no answers and their scores on POPE (arXiv:2305.10355)."""

from collections.abc import Sequence

from mmgpt.evaluation.metrics.rules import Rule
from mmgpt.registry import SCORES
from mmgpt.utils.errors import SampleError, SampleLocation


def says_yes(text: str) -> bool:
    """Whether a text says yes by POPE's rule: its first sentence has none of the words No, no, not.

    Source: github.com/AoiDragon/POPE, evaluate.py. Words are separated by spaces, after commas are deleted.
    """
    return not {"No", "no", "not"} & set(text.split(".")[0].replace(",", "").split(" "))


@SCORES.register_module("yes_no")
class YesNoRule(Rule):
    """POPE's rule: accuracy, and precision, recall and F1 of the answer yes."""

    def score_sample(self, sample: dict) -> dict:
        """Whether the prediction and the reference say yes (bool), and as ``score`` whether they agree.

        Raises:
            ValueError: the sample's answer is neither yes nor no; names the sample.
        """
        answer = str(sample.get("answer")).casefold()
        if answer not in ("yes", "no"):
            reason = f"the right answer must be yes or no, got {sample.get('answer')!r}"
            raise SampleError(reason, SampleLocation.of(sample))
        predicted, expected = says_yes(sample["prediction"]), answer == "yes"
        return {"predicted": predicted, "expected": expected, "score": float(predicted == expected)}

    def summarize(self, rows: Sequence[dict]) -> dict[str, float]:
        """Accuracy, precision, recall and F1 of the answer yes, and the share of predictions that say yes, in percent.

        A share with a zero denominator is 0, such as the precision when no prediction says yes.
        """
        predicted, expected = (sum(row[key] for row in rows) for key in ("predicted", "expected"))
        hits = sum(row["predicted"] and row["expected"] for row in rows)
        shares = {
            "accuracy": (sum(row["predicted"] == row["expected"] for row in rows), len(rows)),
            "precision": (hits, predicted),
            "recall": (hits, expected),
            "F1": (2 * hits, predicted + expected),
            "yes": (predicted, len(rows)),
        }
        return {
            name: 100 * numerator / denominator if denominator else 0.0
            for name, (numerator, denominator) in shares.items()
        }
