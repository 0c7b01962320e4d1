"""Answers for scripts, in the manner of MMEngine's inferencers: images and questions in, answers and sheets out."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from PIL import Image

from mmgpt.apis.build import chat_config, find_device
from mmgpt.apis.chat import Chat
from mmgpt.apis.conversation import read_conversation
from mmgpt.apis.inputs import Asked, is_records, naming, read_input
from mmgpt.apis.pictures import read_picture
from mmgpt.datasets.conversation import is_image, place_images, question_contents, question_text
from mmgpt.datasets.image_files import is_hidden
from mmgpt.datasets.records import read_records
from mmgpt.utils.atomic import atomic_write
from mmgpt.visualization.answers import Card, draw_cards, write_answers
from mmgpt.visualization.comparison import reduced

PER_SHEET = 24
PREDICTIONS, PAGE, SHEET = "predictions.jsonl", "answers.html", "answers_{}.png"


class Answered(NamedTuple):
    """One input and its answer."""

    asked: Asked
    prediction: str


class MMGPTInferencer(BaseInferencer):
    """Answers lists of questions about images.

    Args:
        model: a config file, one already loaded by `load_config`, or a folder that `export` or `merge` wrote.
        weights: what training wrote; without it the model is as before tuning.
        device: a torch device; by default the first GPU, or the CPU when there is none.
        show_progress: whether a bar shows how many batches are answered.
        precision: as for `build_for_serving`.
        trust: as for `Chat.from_config`.

    Attributes:
        chat: the Chat that answers.
        about: what it was made of, as name -> value.

    Raises:
        FileNotFoundError, ValueError: as `Chat.from_config` says.
    """

    preprocess_kwargs = {"question", "image_folder"}
    forward_kwargs = {"generation"}
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
    ):
        self.precision = precision
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
    ) -> dict:
        """Answer some questions. All of them are read and checked before the model runs.

        Args:
            inputs: a list, or one of these by itself: a dict `{'images': [...], 'question': ...}`, or a sample of
                `docs/data.md` with `turns`, of which the last is answered; a pair `(image, question)`, whose image may
                be a list or None; an image, which `question` is asked about. An image is a file or a PIL image. Or a
                folder of images, or a file of such samples (`.jsonl`, `.json`).
            batch_size: questions that are answered at once.
            question: asked where an input has none.
            image_folder: what the paths of images start from; by default the folder of a file of samples.
            generation: arguments of generation over the model's own.
            out_dir: folder for `predictions.jsonl`, `answers.html` and `answers_1.png`, ...; none without it.
            return_vis: whether the sheets are returned.

        Returns: `predictions`, a dict for each input (index, id, images, question, prediction, and `answer` where a
        sample has one), and `visualization`, the sheets, uint8 (H, W, 3) each, or an empty list.

        Raises:
            FileNotFoundError, ValueError: an input is wrong; names its number, counted from 0.
        """
        if out_dir:
            Path(out_dir).mkdir(parents=True, exist_ok=True)
        if is_records(inputs) and not image_folder:
            image_folder = Path(inputs).parent
        given = dict(question=question, image_folder=image_folder, generation=generation)
        made = dict(sheet_dir=out_dir, prediction_dir=out_dir, return_vis=return_vis)
        return super().__call__(inputs, batch_size=batch_size, **given, **made)

    def preprocess(
        self, inputs: list, batch_size: int = 8, question: str | None = None, image_folder: str | Path = ""
    ) -> list[list[Asked]]:
        """Batches of inputs, each of which was read and tokenized once: what is wrong shows before the model runs."""
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be 1 or more")
        if not inputs:
            raise ValueError("there are no inputs")
        asked = []
        for number, item in enumerate(inputs):
            with naming(number):
                asked.append(read_input(number, item, question, image_folder))
                self.pipeline(asked[-1])
        return [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]

    def forward(self, inputs: Sequence[Asked], generation: dict | None = None) -> list[Answered]:
        """The answers of a batch."""
        answers = self.chat.answer_all([asked.conversation() for asked in inputs], generation)
        return [Answered(asked, answer) for asked, answer in zip(inputs, answers, strict=True)]

    def visualize(
        self, inputs: list, preds: list[Answered], sheet_dir: str | Path = "", return_vis: bool = False
    ) -> list[np.ndarray]:
        """Sheets of the answers, PER_SHEET on each; in a folder also as PNG files, and as a page of all."""
        if not (sheet_dir or return_vis):
            return []
        cards = [card_of(answered) for answered in preds]
        sheets = [draw_cards(cards[start : start + PER_SHEET]) for start in range(0, len(cards), PER_SHEET)]
        if sheet_dir:
            for number, sheet in enumerate(sheets, start=1):
                Image.fromarray(sheet).save(Path(sheet_dir) / SHEET.format(number))
            write_answers(cards, self.about, Path(sheet_dir) / PAGE)
        return sheets if return_vis else []

    def postprocess(
        self,
        preds: list[Answered],
        visualization: list[np.ndarray],
        return_datasamples: bool = False,  # MMEngine's; there are no data samples of answers
        prediction_dir: str | Path = "",
    ) -> dict:
        """What the call returns; in a folder also the predictions as JSON lines."""
        rows = [row_of(answered) for answered in preds]
        if prediction_dir:
            with atomic_write(Path(prediction_dir) / PREDICTIONS) as path:
                path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return {"predictions": rows, "visualization": visualization}

    def _inputs_to_list(self, inputs) -> list:
        if is_records(inputs):
            return list(read_records(inputs))
        if isinstance(inputs, (str, Path)) and Path(inputs).is_dir():
            known = Image.registered_extensions()
            return sorted(
                path for path in Path(inputs).iterdir() if path.suffix.lower() in known and not is_hidden(path.name)
            )
        return inputs if isinstance(inputs, list) else [inputs]

    def _init_model(self, cfg: Config, weights: str | Path | None, device: str) -> torch.nn.Module:
        self.about = {"model": cfg.filename, "weights": weights or "before tuning"}
        self.chat = Chat.from_config(cfg, weights, device, precision=self.precision)
        return self.chat.model

    def _init_pipeline(self, cfg: Config) -> Callable[[Asked], dict]:
        return lambda asked: read_conversation(asked.conversation(), self.chat.pipeline)

    def _init_collate(self, cfg: Config) -> None:
        """None: the chat makes its batches."""

    def _init_visualizer(self, cfg: Config) -> None:
        """None: the config's is for training curves."""


def row_of(answered: Answered) -> dict:
    """An answer as it stands in `predictions`."""
    (number, sample, _), last = answered.asked, answered.asked.sample["turns"][-1]
    row = dict(index=number, id=sample["id"], images=sample["images"], question=question_text(last["question"]))
    row["prediction"] = answered.prediction
    return {**row, "answer": last["answer"]} if "answer" in last else row


def card_of(answered: Answered) -> Card:
    """An answer as it is shown."""
    number, sample, files = answered.asked
    name = f"{number}" if sample["id"] == str(number) else f"{number}: {sample['id']}"
    questions = _marked(sample["turns"], len(files))
    answers = [turn.get("answer") for turn in sample["turns"]]
    *said, (question, expected) = zip(questions, answers, strict=True)
    images = [reduced(read_picture(file)) for file in files]
    return Card(name, images, said, question, answered.prediction, expected)


def _marked(turns: Sequence[dict], images: int) -> list[str]:
    """The questions as text; where there are several images, each has its number where it is shown."""
    number, texts = 0, []
    for turn in place_images(turns, images):
        text = ""
        for part in question_contents(turn["question"]):
            number += is_image(part)
            mark = f"[{number}] " if images > 1 else ""
            text += mark if is_image(part) else part["text"]
        texts.append(text)
    return texts
