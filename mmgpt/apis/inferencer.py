"""Inferencer in the style of MMEngine's: lists of images and questions in, answers and sheets of them out."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from PIL import Image

from mmgpt.apis.build import chat_config, find_device
from mmgpt.apis.chat import Chat
from mmgpt.apis.inputs import InferenceInput, is_annotation_file, read_image, read_input
from mmgpt.datasets.conversation import is_image, place_images, question_contents, question_text
from mmgpt.datasets.image_files import is_hidden
from mmgpt.datasets.records import read_records
from mmgpt.utils.atomic import atomic_write
from mmgpt.visualization.cards import Card, draw_cards, write_answers
from mmgpt.visualization.comparison_page import reduced

ANSWERS_PER_SHEET = 24
PREDICTIONS, PAGE, SHEET = "predictions.jsonl", "answers.html", "answers_{}.png"


class InferenceResult(NamedTuple):
    """One input and its answer."""

    input: InferenceInput
    prediction: str


class MMGPTInferencer(BaseInferencer):
    """Inferencer that answers lists of questions about images.

    Args:
        model: a config file, one already loaded by `load_config`, or a folder that `export` or `merge` wrote.
        weights: checkpoint of a training; without it the model is as before tuning.
        device: a torch device; by default the first GPU, or the CPU when there is none.
        show_progress: whether a bar shows how many batches are answered.
        precision: as for `build_for_serving`.
        trust, adapters: as for `Chat.from_config`.

    Attributes:
        chat: the Chat that answers.
        about: config, weights and last adapter of the model, as name -> value.

    Raises:
        FileNotFoundError, ValueError: see `Chat.from_config`.
    """

    preprocess_kwargs = {"question", "image_folder"}
    forward_kwargs = {"generation", "adapter"}
    visualize_kwargs = {"sheet_dir", "return_vis"}
    postprocess_kwargs = {"prediction_dir"}

    def __init__(
        self,
        model: str | Path | Config,
        weights: str | Path | None = None,
        device: str | None = None,
        show_progress: bool = True,
        precision: str | None = None,
        trust: bool = False,
        adapters: Mapping[str, str | Path] | None = None,
    ):
        self.precision, self.adapters = precision, adapters
        cfg, weights = chat_config(model, weights, trust=trust)
        super().__init__(cfg, weights, str(find_device(device)), "mmgpt", show_progress)

    def __call__(
        self,
        inputs,
        batch_size: int = 8,
        question: str | None = None,
        image_folder: str | Path = "",
        generation: dict | None = None,
        out_dir: str | Path = "",
        return_vis: bool = False,
        adapter: str | None = None,
    ) -> dict:
        """Answers to questions, which are all read and checked before the model runs.

        Args:
            inputs: a list, or one of these by itself: a dict `{'images': [...], 'question': ...}`, or a sample of
                `docs/data.md` with `turns`, of which the last is answered; a pair `(image, question)`, whose image may
                be a list or None; an image, which `question` is asked about. An image is a file or a PIL image. Or a
                folder of images, or a file of such samples (`.jsonl`, `.json`).
            batch_size: questions that are answered at once.
            question: for inputs without one.
            image_folder: folder that paths of images start from; by default that of a file of samples.
            generation: generation arguments that override the model's own.
            out_dir: folder for `predictions.jsonl`, `answers.html` and `answers_1.png`, ...; none without it.
            return_vis: whether the sheets are returned.
            adapter: name of the LoRA adapter that answers; None: the model without one.

        Returns: `predictions`, a dict for each input (index, id, images, question, prediction, and `answer` where a
        sample has one), and `visualization`, the sheets, uint8 (H, W, 3) each, or an empty list.

        Raises:
            FileNotFoundError, ValueError: an input is wrong; names its number, counted from 0.
        """
        self.chat.check_adapter(adapter)
        if out_dir:
            Path(out_dir).mkdir(parents=True, exist_ok=True)
        if is_annotation_file(inputs) and not image_folder:
            image_folder = Path(inputs).parent
        questions = dict(question=question, image_folder=image_folder, generation=generation, adapter=adapter)
        if self.chat.adapters:
            self.about["adapter"] = adapter or "none"
        outputs = dict(sheet_dir=out_dir, prediction_dir=out_dir, return_vis=return_vis)
        return super().__call__(inputs, batch_size=batch_size, **questions, **outputs)

    def preprocess(
        self, inputs: list, batch_size: int = 8, question: str | None = None, image_folder: str | Path = ""
    ) -> list[list[InferenceInput]]:
        """Batches of inputs, each of which was read and tokenized once, so that errors show before the model runs."""
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be 1 or more")
        if not inputs:
            raise ValueError("there are no inputs")
        checked = []
        for index, item in enumerate(inputs):
            try:
                checked.append(read_input(index, item, question, image_folder))
                self.pipeline(checked[-1])
            except (ValueError, FileNotFoundError) as error:
                raise type(error)(f"input {index}: {error}") from error
        return [checked[start : start + batch_size] for start in range(0, len(checked), batch_size)]

    def forward(
        self, inputs: Sequence[InferenceInput], generation: dict | None = None, adapter: str | None = None
    ) -> list[InferenceResult]:
        """The answers to a batch."""
        answers = self.chat.answer_all([input.conversation() for input in inputs], generation, adapter)
        return [InferenceResult(input, answer) for input, answer in zip(inputs, answers, strict=True)]

    def visualize(
        self, inputs: list, preds: list[InferenceResult], sheet_dir: str | Path = "", return_vis: bool = False
    ) -> list[np.ndarray]:
        """Sheets of the answers, ANSWERS_PER_SHEET on each; in a folder also as PNG files, and as a page of all."""
        if not (sheet_dir or return_vis):
            return []
        cards = [card_of(result) for result in preds]
        starts = range(0, len(cards), ANSWERS_PER_SHEET)
        sheets = [draw_cards(cards[start : start + ANSWERS_PER_SHEET]) for start in starts]
        if sheet_dir:
            for number, sheet in enumerate(sheets, start=1):
                Image.fromarray(sheet).save(Path(sheet_dir) / SHEET.format(number))
            write_answers(cards, self.about, Path(sheet_dir) / PAGE)
        return sheets if return_vis else []

    def postprocess(
        self,
        preds: list[InferenceResult],
        visualization: list[np.ndarray],
        return_datasamples: bool = False,  # MMEngine passes this argument; answers have no data samples.
        prediction_dir: str | Path = "",
    ) -> dict:
        """The result of the call; in a folder also the predictions as JSON lines."""
        rows = []
        for (index, sample, _), prediction in preds:
            last = sample["turns"][-1]
            row = dict(index=index, id=sample["id"], images=sample["images"], question=question_text(last["question"]))
            row["prediction"] = prediction
            rows.append({**row, "answer": last["answer"]} if "answer" in last else row)
        if prediction_dir:
            with atomic_write(Path(prediction_dir) / PREDICTIONS) as path:
                path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return {"predictions": rows, "visualization": visualization}

    def _inputs_to_list(self, inputs) -> list:
        if is_annotation_file(inputs):
            return list(read_records(inputs))
        if isinstance(inputs, (str, Path)) and os.path.isdir(inputs):
            suffixes = Image.registered_extensions()
            return sorted(
                path for path in Path(inputs).iterdir() if path.suffix.lower() in suffixes and not is_hidden(path.name)
            )
        return inputs if isinstance(inputs, list) else [inputs]

    def _init_model(self, cfg: Config, weights: str | Path | None, device: str) -> torch.nn.Module:
        self.about = {"model": cfg.filename, "weights": weights or "before tuning"}
        self.chat = Chat.from_config(cfg, weights, device, precision=self.precision, adapters=self.adapters)
        return self.chat.model

    def _init_pipeline(self, cfg: Config) -> Callable[[InferenceInput], dict]:
        return lambda input: self.chat.read(input.conversation())

    def _init_collate(self, cfg: Config) -> None:
        """Returns None: the chat collates batches itself."""

    def _init_visualizer(self, cfg: Config) -> None:
        """Returns None: the visualizer of a config is for training curves."""


def card_of(result: InferenceResult) -> Card:
    """An answer with its images and turns, ready to be drawn.

    Where there are several images, each has its number in the question that shows it.
    """
    index, sample, files = result.input
    title = f"{index}" if sample["id"] == str(index) else f"{index}: {sample['id']}"
    image_number, questions = 0, []
    for turn in place_images(sample["turns"], len(files)):
        text = ""
        for content in question_contents(turn["question"]):
            if is_image(content):
                image_number += 1
                text += f"[{image_number}] " if len(files) > 1 else ""
            else:
                text += content["text"]
        questions.append(text)
    answers = [turn.get("answer") for turn in sample["turns"]]
    *earlier, (question, expected) = zip(questions, answers, strict=True)
    images = [reduced(read_image(file)) for file in files]
    return Card(title, images, earlier, question, result.prediction, expected)
