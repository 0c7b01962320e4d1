"""Checks that metrics can score the answers to a dataset's questions, made before anything is answered."""

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
    """The samples of an evaluation in the form that metrics get, without predictions; images are not opened.

    Iterating again starts from the beginning. Where the pipeline has AddCandidates, a question has `candidates`, the
    texts that the model chooses among.

    Args:
        samples: function that returns pairs of a dataset and a sample before its transforms.
    """

    def __init__(self, samples: Callable[[], Iterable[tuple[InstructionDataset, dict]]]):
        self.samples = samples

    def __iter__(self) -> Iterator[dict]:
        for dataset, sample in self.samples():
            with located(SampleLocation.of(sample)):
                question = dataset.text_only(sample, FormatPrompt)
                for step in dataset.pipeline.transforms:
                    if isinstance(step, AddCandidates):
                        question["choices"] = question["candidates"] = step.candidate_answers(question)
            yield {key: question[key] for key in KEYS if key in question}


def questions_of(dataset: Dataset) -> Questions | None:
    """The questions of a dataset; None if it contains datasets other than InstructionDataset with FormatPrompt."""
    leaves = _leaves(dataset)
    if not all(isinstance(leaf, InstructionDataset) and has_prompt(leaf) for leaf in leaves):
        return None
    return Questions(lambda: ((leaf, leaf.get_data_info(i)) for leaf in leaves for i in range(len(leaf))))


def has_prompt(dataset: InstructionDataset) -> bool:
    """Whether a dataset's pipeline has FormatPrompt."""
    return any(isinstance(step, FormatPrompt) for step in dataset.pipeline.transforms)


def scoring_problems(config: Mapping | Sequence[Mapping], datasets: Sequence[CheckedDataset]) -> Iterator[str]:
    """Reasons why metrics of a config could not score answers to the samples of datasets: one sentence per metric."""
    try:
        metrics = build_metrics(config)
    except (ValueError, LookupError, ImportError, OSError) as error:
        yield str(error)
        return
    if not all(has_prompt(checked.dataset) for checked in datasets):
        return
    questions = Questions(
        lambda: (
            (checked.dataset, checked.dataset.equip(sample, 0, i))
            for checked in datasets
            for i, sample in enumerate(checked.samples)
        )
    )
    for metric in metrics:
        try:
            check_questions([metric], questions)
        # Transforms raise these errors for records that they do not expect, as parsers do (see parse_record).
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            yield f"{type(metric).__name__}: {error}"


def build_metrics(config: Mapping | Sequence[Mapping]) -> list[BaseMetric]:
    """The metrics of a config's `test_evaluator`: one, a list, or an Evaluator with its list."""
    if isinstance(config, Mapping):
        config = config.get("metrics", [config])
    return [METRICS.build(metric) for metric in config]


def check_questions(metrics: Iterable[BaseMetric], questions: Questions | None) -> None:
    """Call the method `check` of each metric that has one, with the questions.

    Raises:
        ValueError: answers to the questions could not be scored; names the sample, or the tag that all samples lack.
    """
    for metric in metrics:
        if questions is not None and hasattr(metric, "check"):
            metric.check(questions)


def check_evaluation(cfg: Mapping) -> None:
    """Read the test data of a config and check its questions with its metrics; no model is needed.

    Raises:
        ImportError: a package that a metric needs is not installed.
        ValueError: see `check_questions`; or the data or the metrics are invalid.
    """
    metrics = build_metrics(cfg["test_evaluator"])
    if any(hasattr(metric, "check") for metric in metrics):
        check_questions(metrics, questions_of(DATASETS.build(cfg["test_dataloader"]["dataset"])))


def _leaves(dataset: Dataset) -> list[Dataset]:
    """The datasets inside joint datasets and wrappers."""
    if isinstance(dataset, JointDataset):
        inner = mixed_datasets(dataset)
    elif hasattr(dataset, "dataset"):
        inner = [dataset.dataset]
    else:
        inner = getattr(dataset, "datasets", ())
    return [leaf for child in inner for leaf in _leaves(child)] if inner else [dataset]
