"""Evaluations as EvaluationLoop writes them, made by hand."""

import json

from PIL import Image


def row(number, **changes):
    """A right answer about a red picture."""
    made = dict(index=number, id=f"q{number}", dataset="colour", question="What colour is it?", images=["red.png"])
    made |= dict(source="visual", file="a.json", prompt="What?", answer="red", answers=["red"], prediction="red")
    return made | changes


def dataset(folder, name="colour"):
    return dict(
        type="InstructionDataset",
        name=name,
        parser="aokvqa",
        data_root=str(folder),
        ann_file=f"{name}.json",
        data_prefix=dict(img="images"),
    )


def write(folder, rows, data=None, metrics=None, **settings):
    """An evaluation's folder, and the picture that its rows are about."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(folder / "images" / "red.png")
    made_of = dict(checkpoint={}, data=data or dataset(folder), metrics=metrics or dict(type="AnswerAccuracy"))
    result = dict(metrics={}, samples=len(rows), settings=made_of | settings, versions=dict(torch="2.11.0"))
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
