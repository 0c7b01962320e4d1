"""A conversation with a tuned model: text and images in, text out as it comes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from PIL import Image

from mmgpt.apis.build import build_model, find_config
from mmgpt.apis.pictures import read_picture
from mmgpt.apis.streaming import stream_text
from mmgpt.datasets import collate_conversations
from mmgpt.datasets.conversation import IMAGE_PART, text_part
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.engine import load_config

PROMPT = ("input_ids", "attention_mask", "pixels", "image_counts")  # what `generate` reads of a batch


@dataclass
class Conversation:
    """One conversation as plain data.

    Attributes:
        turns: ``question`` (parts, as in a training sample) and ``answer`` of each turn so far.
        images: the pictures, RGB, in the order of their places in the turns.
    """

    turns: list[dict] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)


class Chat:
    """Answers questions about text and images; one model serves any number of conversations.

    Args:
        model: a Flamingo, or a LoRAModel around one, in eval mode.
        pipeline: the transforms from a sample with ``pil`` images to ``input_ids`` and ``pixels``: the same ones
            that training uses, with the last answer open, so that a conversation is tokenized as in training.
        generation: generation arguments that override the model's own, e.g. ``dict(max_new_tokens=64)``.
    """

    def __init__(self, model: torch.nn.Module, pipeline: Sequence[Callable], generation: dict | None = None):
        self.model = model
        self.pipeline = list(pipeline)
        self.generation = generation or {}

    @classmethod
    def from_config(
        cls,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        options: dict | None = None,
        generation: dict | None = None,
    ) -> "Chat":
        """Build the model and the ``chat_pipeline`` that a config names.

        Args:
            config: a config file, one already loaded by ``load_config`` (then without ``options``), or a folder that
                ``export`` or ``merge`` wrote.
            checkpoint: what training wrote; without it the model is as before tuning.
            device: a torch device; by default the first GPU, or the CPU when there is none.
            options: values that override the config's, as ``--cfg-options`` does.
            generation: see the class.

        Raises:
            FileNotFoundError: the config, the checkpoint, or weights that the config names are missing.
            ValueError: the config has no ``chat_pipeline``, or ``options`` come too late for a loaded config.
        """
        if isinstance(config, Config) and options:
            raise ValueError(f"options {sorted(options)}: a config that is already loaded cannot take them any more")
        if isinstance(config, Config):
            cfg = config
        else:
            file, own = find_config(config)
            cfg, checkpoint = load_config(file, options), checkpoint or own
        if "chat_pipeline" not in cfg:
            raise ValueError(
                f"{cfg.filename}: a chat needs `chat_pipeline`, a list of transforms "
                "(PrepareImages, FormatPrompt(open_last=True), TokenizeSegments)"
            )
        model = build_model(cfg, checkpoint, device)
        return cls(model, build_pipeline(cfg.chat_pipeline), generation)

    def start(self) -> Conversation:
        """A new, empty conversation."""
        return Conversation()

    def ask(self, conversation: Conversation, text: str, images: Sequence = ()) -> str:
        """The answer to one question; arguments and errors are those of ``stream``."""
        return "".join(self.stream(conversation, text, images)).strip()

    def stream(
        self, conversation: Conversation, text: str, images: Sequence[str | Path | Image.Image] = ()
    ) -> Iterator[str]:
        """Ask one question and yield its answer in pieces.

        The turn is added to the conversation when the answer ends; when the consumer closes the iterator early, with
        what came so far. A turn that fails or says nothing leaves the conversation as it was.

        Args:
            conversation: what was said so far; changed as described.
            text: the question. All of it is literal: a typed ``<image>`` stays text.
            images: files or PIL images that belong to this question, shown before its text.

        Raises:
            FileNotFoundError: an image file does not exist.
            ValueError: the question is empty, a file is not a readable image, or the conversation with this question
                is longer than the pipeline's token limit.
        """
        if not text.strip():
            raise ValueError("the question is empty")
        pictures = [read_picture(image) for image in images]
        question = [IMAGE_PART] * len(pictures) + [text_part(text)]
        asked = Conversation([*conversation.turns, {"question": question}], conversation.images + pictures)
        return self._answer(conversation, asked, self.prepare(asked))

    def answer_all(self, conversations: Sequence[Conversation], generation: dict | None = None) -> list[str]:
        """The answers to the last questions of some conversations, as one batch; the conversations stay as they are.

        Unlike a stream it uses beams, where the model's generation arguments or `generation`, which override all
        others, ask for them.

        Raises:
            ValueError: a conversation is longer than the pipeline's token limit.
        """
        prompts = self.batch(conversations, self.pipeline, "left")
        arguments = {**self._generation(), **(generation or {})}
        with torch.inference_mode():
            ids = self.model.generate(**{key: prompts[key] for key in PROMPT}, **arguments)
        texts = self.model.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]

    def prepare(self, conversation: Conversation) -> dict:
        """Model inputs of a conversation whose last turn has no answer yet.

        Returns: ``input_ids`` and ``attention_mask`` (1, L), ``pixels`` (1, T, 3, H, W) or None without an image,
        ``image_counts`` (1,), on the model's device.
        """
        batch = self.batch([conversation], self.pipeline, "left")
        return {key: batch[key] for key in PROMPT}

    def batch(self, conversations: Sequence[Conversation], pipeline: Sequence[Callable], padding_side: str) -> dict:
        """What `collate_conversations` makes of conversations that went through a pipeline, on the model's device."""
        samples = [read_conversation(conversation, pipeline) for conversation in conversations]
        batch = collate_conversations(samples, self.model.tokenizer.pad_token_id, padding_side)
        device = next(self.model.parameters()).device
        return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}

    def _generation(self) -> dict:
        return {**getattr(self.model, "module", self.model).generation, **self.generation}

    def _answer(self, conversation: Conversation, asked: Conversation, inputs: dict) -> Iterator[str]:
        # A stream shows one sequence as it grows, so that it cannot use beams.
        generate = partial(self.model.generate, **inputs, **{**self._generation(), "num_beams": 1})
        said = ""
        try:
            with closing(stream_text(generate, self.model.tokenizer)) as pieces:
                for piece in pieces:
                    said += piece
                    yield piece
        except Exception:
            said = ""
            raise
        finally:
            if said.strip():
                asked.turns[-1]["answer"] = said.strip()
                conversation.turns, conversation.images = asked.turns, asked.images


def read_conversation(conversation: Conversation, pipeline: Sequence[Callable]) -> dict:
    """A conversation through a pipeline, as a sample for `collate_conversations`."""
    names = [f"image {number}" for number in range(1, len(conversation.images) + 1)]
    turns = [dict(turn) for turn in conversation.turns]
    sample = {"images": names, "pil": list(conversation.images), "turns": turns, "source": "chat", "meta": {}}
    for transform in pipeline:
        sample = transform(sample)
    return sample
