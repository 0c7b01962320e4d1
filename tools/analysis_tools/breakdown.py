"""Scores of the quickstart report: percentages of correct answers, also by the properties of their scenes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmgpt.evaluation.metrics.answers import mean, percent_by_dataset

MAIN_OBJECTS = 2


class Scenes:
    """The properties of the generated images, found by file name.

    Args:
        path: ``scenes.json``: image path below the data folder -> ``kind`` ('shapes', 'word', 'digits'), ``unseen``
            (bool: the scene has a pair of shape and color that no training scene has), ``objects`` (list), ...
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file; the tiny world's generator writes it")
        self.scenes = json.loads(self.path.read_text(encoding="utf-8"))
        self.by_name: dict[str, list[str]] = {}
        for key in self.scenes:
            self.by_name.setdefault(Path(key).name, []).append(key)

    def of(self, images: Sequence[str]) -> dict | None:
        """Properties of a sample's first image; None for a text-only sample.

        Of several images with one file name the held-out one counts.

        Raises:
            KeyError: the image is not in the file.
        """
        if not images:
            return None
        keys = self.by_name.get(Path(images[0]).name, [])
        held_out = [key for key in keys if self.scenes[key]["split"] == "heldout"] or keys
        if len(held_out) != 1:
            raise KeyError(f"{self.path}: {len(held_out)} images are named {images[0]!r}, expected one")
        return self.scenes[held_out[0]]

    def objects(self, images: Sequence[str]) -> int | None:
        """Number of objects of a scene of shapes; None for words, digits and text-only samples."""
        scene = self.of(images)
        return len(scene["objects"]) if scene and scene["kind"] == "shapes" else None

    def is_main(self, images: Sequence[str]) -> bool:
        """Whether a sample counts for the main scores: all samples but scenes of three and more objects."""
        return (self.objects(images) or 0) <= MAIN_OBJECTS


def scores(rows: Iterable[dict]) -> dict:
    """Mean over the visual families (``visual_mean``), percentage of each family, and ``counts`` of questions."""
    rows = list(rows)
    percent, counts = percent_by_dataset(rows)
    visual = [percent[name] for name in families(rows, "visual")]
    result = {"visual_mean": mean(visual)} if visual else {}
    rounded = {name: round(value, 2) for name, value in (result | percent).items()}
    return rounded | {"counts": counts}


def families(rows: Iterable[dict], source: str) -> list[str]:
    """Names of the datasets of one source ('visual' or 'language'), in the order in which they appear."""
    return list(dict.fromkeys(row["dataset"] for row in rows if row["source"] == source))


def breakdown(rows: Sequence[dict], scenes: Scenes) -> dict:
    """Scores of the tuned model's answers by the content of the scenes.

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
