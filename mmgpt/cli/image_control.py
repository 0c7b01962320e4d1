"""Configs of datasets whose samples get wrong images (mmgpt/datasets/controls.py)."""

from collections.abc import Mapping

KINDS = ("other", "zero")


def with_control(dataset: Mapping, kind: str) -> dict:
    """The config of a JointDataset or an InstructionDataset, its pictures under an ImageControl of that kind."""
    if "visual" in dataset:
        parts = [with_control(part, kind) for part in dataset["visual"] or ()]
        return {**dataset, "visual": parts}
    if dataset.get("source", "visual") != "visual":
        return dict(dataset)
    return dict(type="ImageControl", dataset=dict(dataset), kind=kind)
