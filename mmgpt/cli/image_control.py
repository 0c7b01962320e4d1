"""Dataset configs of the controls with shuffled or black images (see mmgpt/datasets/controls.py)."""

from collections.abc import Mapping

KINDS = ("other", "zero")


def with_control(dataset: Mapping, kind: str) -> dict:
    """The config of a JointDataset or an InstructionDataset, whose visual datasets are wrapped in an ImageControl."""
    if "visual" in dataset:
        return {**dataset, "visual": [with_control(member, kind) for member in dataset["visual"] or ()]}
    if dataset.get("source", "visual") != "visual":
        return dict(dataset)
    return dict(type="ImageControl", dataset=dict(dataset), kind=kind)
