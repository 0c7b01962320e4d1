"""Mixture of visual and language-only datasets, with the index of one dataset."""

from collections.abc import Sequence

from mmgpt.registry import DATASETS

from .instruction import InstructionDataset


@DATASETS.register_module()
class JointDataset:
    """Concatenation of visual datasets and language-only datasets, in this order.

    An index beyond the length means a later epoch (see InstructionDataset) and is passed on as such. JointBatchSampler
    draws from the datasets by their weights.

    Args:
        visual: configs (or datasets) of the samples of the visual loss. A dataset with `weight=0` is not read.
        language: configs (or datasets) of the samples of the language loss. Either list may be empty or None.
        seed: seed of the datasets whose configs have none.
        on_error: error handling of the datasets whose configs have none, see InstructionDataset.

    Attributes:
        visual_size: number of visual samples, each counted once whatever its weight.
        language_size: number of language-only samples, counted in the same way.

    Raises:
        ValueError: there is no dataset, or the `source` of a dataset is not that of its list.
    """

    def __init__(
        self, visual: Sequence | None = (), language: Sequence | None = (), seed: int = 0, on_error: str = "raise"
    ):
        self.visual = [build_dataset(config, "visual", seed, on_error) for config in with_weight(visual)]
        self.language = [build_dataset(config, "language", seed, on_error) for config in with_weight(language)]
        if not self.visual and not self.language:
            raise ValueError("a joint dataset needs at least one visual or language dataset")
        self.visual_size = sum(len(dataset) for dataset in self.visual)
        self.language_size = sum(len(dataset) for dataset in self.language)

    @property
    def metainfo(self) -> dict:
        """Names of the datasets, which MMEngine passes to visualizers and metrics."""
        return {
            "visual": [dataset.name for dataset in self.visual],
            "language": [dataset.name for dataset in self.language],
        }

    def __len__(self) -> int:
        return self.visual_size + self.language_size

    def __getitem__(self, idx: int) -> dict:
        dataset, index = self.locate(idx)
        return dataset[index]

    def text_length(self, idx: int) -> int:
        """See InstructionDataset."""
        dataset, index = self.locate(idx)
        return dataset.text_length(index)

    def locate(self, idx: int) -> tuple[InstructionDataset, int]:
        """Dataset of an index, and the index in that dataset."""
        epoch, position = divmod(idx, len(self))
        for dataset in (*self.visual, *self.language):
            if position < len(dataset):
                return dataset, max(epoch, 0) * len(dataset) + position
            position -= len(dataset)
        raise IndexError(f"index {idx} of a dataset of {len(self)}")

    def __iter__(self):
        # Python's default iteration would never end, because every index is valid in some epoch.
        return (self[i] for i in range(len(self)))


def with_weight(configs: Sequence | None) -> list:
    """Entries of a list of JointDataset that take part in the mixture: all but those whose config has `weight=0`."""
    return [config for config in configs or () if not (isinstance(config, dict) and config.get("weight") == 0)]


def mixed_datasets(dataset) -> list:
    """Datasets of a JointDataset, the visual ones first; a list of the dataset itself for any other."""
    return [*dataset.visual, *dataset.language] if isinstance(dataset, JointDataset) else [dataset]


def build_dataset(config, source: str, seed: int, on_error: str = "raise") -> InstructionDataset:
    """Dataset of a JointDataset's list for `source`, from its config (or the config of a wrapper) or already built.

    Raises:
        ValueError: the dataset has another `source`.
    """
    dataset = config
    if isinstance(config, dict):
        defaults = {"seed": seed, "on_error": on_error}
        if "dataset" in config:
            dataset = DATASETS.build({**config, "dataset": {**defaults, **config["dataset"]}})
        else:
            dataset = DATASETS.build({**defaults, **config})
    if dataset.source != source:
        raise ValueError(f"dataset {dataset.name!r} has source={dataset.source!r}, but is listed under {source!r}")
    return dataset
