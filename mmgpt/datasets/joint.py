"""Visual and language-only data as one dataset."""

from collections.abc import Sequence

from mmgpt.registry import DATASETS

from .instruction import InstructionDataset


@DATASETS.register_module()
class JointDataset:
    """Datasets in one row, the visual ones first.

    An index beyond the length means a later epoch (see InstructionDataset), which the parts are told. The weights of
    the parts count in JointBatchSampler.

    Args:
        visual: configs (or datasets) of the samples of the visual loss. One with `weight=0` is left out, unread.
        language: likewise of the language loss. An empty list, or None, leaves a half out.
        seed: of the datasets that are given as configs without one.
        on_error: likewise, see InstructionDataset.

    Attributes:
        visual_size: number of visual samples, each counted once whatever its weight.
        language_size: number of language-only samples, likewise.

    Raises:
        ValueError: no dataset at all, or one whose `source` is not that of its list.
    """

    def __init__(
        self, visual: Sequence | None = (), language: Sequence | None = (), seed: int = 0, on_error: str = "raise"
    ):
        self.visual = [build_part(part, "visual", seed, on_error) for part in kept(visual)]
        self.language = [build_part(part, "language", seed, on_error) for part in kept(language)]
        if not self.visual and not self.language:
            raise ValueError("a joint dataset needs at least one visual or language dataset")
        self.visual_size = sum(len(part) for part in self.visual)
        self.language_size = sum(len(part) for part in self.language)

    @property
    def metainfo(self) -> dict:
        """Names of the parts, as MMEngine's visualizers and metrics are told."""
        return {"visual": [part.name for part in self.visual], "language": [part.name for part in self.language]}

    def __len__(self) -> int:
        return self.visual_size + self.language_size

    def __getitem__(self, idx: int) -> dict:
        part, index = self.locate(idx)
        return part[index]

    def text_length(self, idx: int) -> int:
        """See InstructionDataset."""
        part, index = self.locate(idx)
        return part.text_length(index)

    def locate(self, idx: int) -> tuple[InstructionDataset, int]:
        """The part that an index leads to, and the index there."""
        epoch, position = divmod(idx, len(self))
        for part in (*self.visual, *self.language):
            if position < len(part):
                return part, max(epoch, 0) * len(part) + position
            position -= len(part)
        raise IndexError(f"index {idx} of a dataset of {len(self)}")

    def __iter__(self):
        # Without it, iteration would go on for ever, from epoch to epoch.
        return (self[i] for i in range(len(self)))


def kept(parts: Sequence | None) -> list:
    """The parts of a list of JointDataset that are in the mix: all but those whose config says `weight=0`."""
    return [part for part in parts or () if not (isinstance(part, dict) and part.get("weight") == 0)]


def parts_of(dataset) -> list:
    """The parts of a joint dataset, the visual ones first; any other dataset is its own only part."""
    return [*dataset.visual, *dataset.language] if isinstance(dataset, JointDataset) else [dataset]


def build_part(part, source: str, seed: int, on_error: str = "raise") -> InstructionDataset:
    """A part of a JointDataset that is listed under `source`: from its config (or that of a wrapper), or the one given.

    Raises:
        ValueError: the part's own `source` is another.
    """
    dataset = part
    if isinstance(part, dict):
        told = {"seed": seed, "on_error": on_error}
        wrapped = {"dataset": {**told, **part["dataset"]}} if "dataset" in part else {}
        dataset = DATASETS.build({**part, **wrapped} if wrapped else {**told, **part})
    if dataset.source != source:
        raise ValueError(f"dataset {dataset.name!r} has source={dataset.source!r}, but is listed under {source!r}")
    return dataset
