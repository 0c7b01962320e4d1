"""Whether metrics can judge the answers to some questions: found out before the first of them is answered."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mmengine.evaluator import BaseMetric
from torch.utils.data import Dataset

from mmgpt.datasets.inspection.check import CheckedDataset
from mmgpt.datasets.instruction import InstructionDataset
from mmgpt.datasets.joint import JointDataset, mixed_datasets
from mmgpt.datasets.transforms import AddCandidates, FormatPrompt
from mmgpt.registry import DATASETS, METRICS
from mmgpt.utils.errors import SampleLocation, located

KEYS = ("id", "dataset", "file", "record", "answer", "answers", "choices", "candidates", "tags")


class Questions:
    """The samples of an evaluation as metrics get them, but without predictions, and without their images being opened.

    They can be iterated over any number of times. `candidates` are the texts that the model is to choose among, where
    the pipeline has AddCandidates.

    Args:
        samples: gives pairs of a dataset and a sample before its transforms.
    """

    def __init__(self, samples: Callable[[], Iterable[tuple[InstructionDataset, dict]]]):
        self.samples = samples

    def __iter__(self) -> Iterator[dict]:
        for dataset, sample in self.samples():
            with located(SampleLocation.of(sample)):
                question = dataset.text_only(sample, FormatPrompt)
                for step in dataset.pipeline.transforms:
                    if isinstance(step, AddCandidates):
                        question["choices"] = question["candidates"] = step.offered(question)
            yield {key: question[key] for key in KEYS if key in question}


def questions_of(dataset: Dataset) -> Questions | None:
    """The questions of a dataset; None where it has parts of which nothing is known but their items."""
    parts = _leaves(dataset)
    if not all(isinstance(part, InstructionDataset) and formats(part) for part in parts):
        return None
    return Questions(lambda: ((part, part.get_data_info(i)) for part in parts for i in range(len(part))))


def formats(dataset: InstructionDataset) -> bool:
    """Whether a dataset's pipeline writes prompts, as metrics need them."""
    return any(isinstance(step, FormatPrompt) for step in dataset.pipeline.transforms)


def questions_of_parts(parts: Sequence[CheckedDataset]) -> Questions:
    """The questions of datasets that are being checked."""
    return Questions(
        lambda: (
            (part.dataset, part.dataset.equip(sample, 0, i)) for part in parts for i, sample in enumerate(part.samples)
        )
    )


def unjudgeable(config: Mapping | Sequence[Mapping], parts: Sequence[CheckedDataset]) -> Iterator[str]:
    """Why the metrics of a config could not judge the answers to the samples of some parts, a sentence for each."""
    try:
        metrics = build_metrics(config)
    except (ValueError, LookupError, ImportError, OSError) as error:
        yield str(error)
        return
    for metric in metrics if all(formats(part.dataset) for part in parts) else ():
        try:
            check_questions([metric], questions_of_parts(parts))
        # As in parse_record: what a transform does with a record that it did not expect.
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            yield f"{type(metric).__name__}: {error}"


def build_metrics(config: Mapping | Sequence[Mapping]) -> list[BaseMetric]:
    """The metrics of a config's `test_evaluator`: one, a list, or an Evaluator with its list."""
    if isinstance(config, Mapping):
        config = config.get("metrics", [config])
    return [METRICS.build(metric) for metric in config]


def check_questions(metrics: Iterable[BaseMetric], questions: Questions | None) -> None:
    """Let each metric that has a method `check` look at the questions.

    Raises:
        ValueError: answers to them could not be judged; names the sample, or what all of them lack.
    """
    for metric in metrics:
        if questions is not None and hasattr(metric, "check"):
            metric.check(questions)


def check_evaluation(cfg: Mapping) -> None:
    """Read the test data of a config, and let its metrics look at the questions; no model is needed.

    Raises:
        ImportError: a metric needs a package that is not installed.
        ValueError: see `check_questions`; or the data or the metrics are refused.
    """
    metrics = build_metrics(cfg["test_evaluator"])
    if any(hasattr(metric, "check") for metric in metrics):
        check_questions(metrics, questions_of(DATASETS.build(cfg["test_dataloader"]["dataset"])))


def _leaves(dataset: Dataset) -> list[Dataset]:
    """The datasets within joint datasets and wrappers."""
    if isinstance(dataset, JointDataset):
        inner = mixed_datasets(dataset)
    elif hasattr(dataset, "dataset"):
        inner = [dataset.dataset]
    else:
        inner = getattr(dataset, "datasets", ())
    return [leaf for part in inner for leaf in _leaves(part)] if inner else [dataset]
