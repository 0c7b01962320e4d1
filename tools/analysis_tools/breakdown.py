"""The figures of the quickstart report: percentages of judged answers, joined with the facts of their scenes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmgpt.evaluation.metrics.answers import mean, percent_by_dataset

MAIN_OBJECTS = 2


class Scenes:
    """The facts of every drawn picture, found by its file name.

    Args:
        path: ``scenes.json``: image path below the data folder -> ``kind`` ('shapes', 'word', 'digits'), ``unseen``
            (bool: holds a pair of shape and colour that no training scene has), ``objects`` (list), ...
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file; the tiny world's generator writes it")
        self.facts = json.loads(self.path.read_text(encoding="utf-8"))
        self.by_name: dict[str, list[str]] = {}
        for key in self.facts:
            self.by_name.setdefault(Path(key).name, []).append(key)

    def of(self, images: Sequence[str]) -> dict | None:
        """Facts of a sample's first image; None for a text-only sample.

        Of several pictures with one file name the held-out one counts. Raises KeyError for a picture unknown here.
        """
        if not images:
            return None
        keys = self.by_name.get(Path(images[0]).name, [])
        held_out = [key for key in keys if self.facts[key]["split"] == "heldout"] or keys
        if len(held_out) != 1:
            raise KeyError(f"{self.path}: {len(held_out)} pictures are named {images[0]!r}, expected one")
        return self.facts[held_out[0]]

    def objects(self, images: Sequence[str]) -> int | None:
        """Number of objects of a scene of shapes; None for words, digits and text-only samples."""
        facts = self.of(images)
        return len(facts["objects"]) if facts and facts["kind"] == "shapes" else None

    def is_main(self, images: Sequence[str]) -> bool:
        """Whether a sample belongs to the main figures: everything but scenes of three and more objects."""
        return (self.objects(images) or 0) <= MAIN_OBJECTS


def scores(rows: Iterable[dict]) -> dict:
    """``visual_mean`` over the visual families, every family in percent, and ``counts`` of questions."""
    rows = list(rows)
    percent, counts = percent_by_dataset(rows)
    visual = [percent[name] for name in families(rows, "visual")]
    result = {"visual_mean": mean(visual)} if visual else {}
    rounded = {name: round(value, 2) for name, value in (result | percent).items()}
    return rounded | {"counts": counts}


def families(rows: Iterable[dict], source: str) -> list[str]:
    """Names of the datasets of one source ('visual' or 'language'), in order of appearance."""
    return list(dict.fromkeys(row["dataset"] for row in rows if row["source"] == source))


def breakdown(rows: Sequence[dict], scenes: Scenes) -> dict:
    """Scores of the tuned model's answers by what the scenes hold.

    Returns:
        ``by_objects`` ('1' ... -> scores), ``unseen_pairs`` and ``seen_pairs`` (scores, on scenes of one and two
        objects), ``text_only`` (family -> percent).
    """
    shapes = [row for row in rows if scenes.objects(row["images"])]
    numbers = sorted({scenes.objects(row["images"]) for row in shapes})
    main = [row for row in shapes if scenes.is_main(row["images"])]
    text = [row for row in rows if row["source"] == "language"]
    return {
        "by_objects": {str(n): scores(r for r in shapes if scenes.objects(r["images"]) == n) for n in numbers},
        "unseen_pairs": scores(row for row in main if scenes.of(row["images"])["unseen"]),
        "seen_pairs": scores(row for row in main if not scenes.of(row["images"])["unseen"]),
        "text_only": {name: round(value, 2) for name, value in percent_by_dataset(text)[0].items()},
    }
