"""A conversation with a tuned model: text and images in, text out as it comes."""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path

import torch
from mmengine.config import Config
from PIL import Image

from mmgpt.apis.build import chat_config
from mmgpt.apis.conversation import Conversation, read_conversation
from mmgpt.apis.pictures import read_picture
from mmgpt.apis.precision import build_for_serving
from mmgpt.datasets import collate_conversations
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.datasets.prompts import check_ends
from mmgpt.datasets.transforms import FormatPrompt
from mmgpt.inference.answer import Answer
from mmgpt.inference.detokenizer import AnswerText
from mmgpt.inference.request import Request
from mmgpt.inference.scheduler import Engine
from mmgpt.models import flamingo_of
from mmgpt.models.generation import generation_arguments
from mmgpt.models.sampling import Sampler

PROMPT = ("input_ids", "attention_mask", "pixels", "image_counts")  # what `generate` reads of a batch
STREAMED = {"num_beams": 1}  # what streams use beside the chat's own generation arguments


class Chat:
    """Answers questions about text and images; one model serves any number of conversations, from any threads.

    Args:
        model: a Flamingo, or a LoRAModel around one, in eval mode.
        pipeline: the transforms from a sample with ``pil`` images to ``input_ids`` and ``pixels``: the same ones
            that training uses, with the last answer open, so that a conversation is tokenized as in training.
        generation: generation arguments that override the model's own, e.g. ``dict(max_new_tokens=64)``.
        engine: arguments of `Engine` besides the model (max_batch, max_waiting, cache_bytes).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        pipeline: Sequence[Callable],
        generation: dict | None = None,
        engine: dict | None = None,
    ):
        self.model, self.flamingo = model, flamingo_of(model)
        self.pipeline = list(pipeline)
        self.generation = {**self.flamingo.generation, **(generation or {})}
        self.engine = Engine(model, **(engine or {}))
        tokenizer = model.tokenizer
        for step in self.pipeline:
            if isinstance(step, FormatPrompt):
                ends = tokenizer.convert_ids_to_tokens(self.flamingo.ends(self.generation))
                check_ends(step.template, tokenizer.eos_token, ends)

    @classmethod
    def from_config(
        cls,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        options: dict | None = None,
        generation: dict | None = None,
        engine: dict | None = None,
        precision: str | None = None,
        merge: bool = True,
        trust: bool = False,
    ) -> "Chat":
        """Build the model and the ``chat_pipeline`` that a config names.

        Args:
            config: a config file, one already loaded by ``load_config`` (then without ``options``), or a folder that
                ``export`` or ``merge`` wrote.
            checkpoint: what training wrote; without it the model is as before tuning.
            device: a torch device; by default the first GPU, or the CPU when there is none.
            options: values that override the config's, as ``--cfg-options`` does.
            generation, engine: see the class.
            precision, merge: as for ``build_for_serving``.
            trust: whether an exported folder may have classes of somebody's own imported, or a ``config.py`` that is
                no plain settings run.

        Raises:
            FileNotFoundError: the config, the checkpoint, or weights that the config names are missing.
            ValueError: the config has no ``chat_pipeline``, ``options`` come too late for a loaded config, or as
                ``build_for_serving`` says.
        """
        cfg, checkpoint = chat_config(config, checkpoint, options, trust)
        model = build_for_serving(cfg, checkpoint, device, precision, merge)
        return cls(model, build_pipeline(cfg.chat_pipeline), generation, engine)

    def start(self) -> Conversation:
        """A new, empty conversation."""
        return Conversation()

    def ask(
        self,
        conversation: Conversation,
        text: str,
        images: Sequence[str | Path | Image.Image] = (),
        generation: dict | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """The answer to one question; arguments and errors are those of ``stream``."""
        return "".join(self.stream(conversation, text, images, generation, seed, stop))

    def stream(
        self,
        conversation: Conversation,
        text: str,
        images: Sequence[str | Path | Image.Image] = (),
        generation: dict | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Ask one question and yield its answer in pieces.

        The turn is added to the conversation when the answer ends; when the consumer closes the iterator early, with
        what came so far. A turn that fails or says nothing leaves the conversation as it was.

        Args:
            conversation: what was said so far; changed as described.
            text: the question. All of it is literal: a typed ``<image>`` stays text.
            images: files or PIL images that belong to this question, shown before its text.
            generation, seed, stop: as for ``submit``.

        Raises:
            FileNotFoundError: an image file does not exist.
            ValueError: the question is empty, a file is not a readable image, or as for ``submit``.
        """
        if not text.strip():
            raise ValueError("the question is empty")
        asked = conversation.asked(text, [read_picture(image) for image in images])
        return self._pieces(conversation, asked, self._request(asked, generation, seed, stop))

    def submit(
        self,
        conversation: Conversation,
        generation: dict | None = None,
        *,
        seed: int | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
        listener: Callable | None = None,
        scope: str = "",
    ) -> Answer:
        """Ask the last question of a conversation, which has no answer yet; the conversation stays as it is.

        Args:
            conversation: its images are RGB.
            generation: arguments of transformers' generate over the chat's own (max_new_tokens, do_sample, temperature,
                top_p, num_beams, ...). Beams are used only when `num_beams` is given here: such an answer comes as one
                piece.
            seed: of what is drawn; None: another each time.
            stop: texts that end the answer, and are left out of it.
            top_logprobs: how many of the likeliest tokens are told at each place; None: no log-probabilities.
            listener: see `Answer`.
            scope: what is kept of a text is used for questions of the same scope only: by how fast a question is
                answered, others could guess at what was asked.

        Raises:
            ValueError: the conversation is longer than the pipeline's token limit or than the model can read, has
                another number of images than of places for them, or an argument is not understood.
            Busy: too many questions wait.
        """
        request = self._request(conversation, generation, seed, stop, top_logprobs, listener, scope)
        self.engine.submit(request)
        return request.answer

    def _request(
        self,
        conversation: Conversation,
        generation: dict | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        top_logprobs: int | None = None,
        listener: Callable | None = None,
        scope: str = "",
    ) -> Request:
        sample = read_conversation(conversation, self.pipeline)
        ids = sample["input_ids"][None].to(next(self.model.parameters()).device)
        given = {**self.generation, **STREAMED, **(generation or {})}
        arguments = generation_arguments(self.model.tokenizer, given, self.engine.language.ends)
        if top_logprobs is not None and (arguments.get("num_beams", 1) > 1 or not self.engine.reader.keeps):
            raise ValueError("log-probabilities are told of answers with num_beams=1 by models of attention only")
        sampler = Sampler(self.engine.language, arguments, ids, seed, top_logprobs)
        arguments["max_new_tokens"] = sampler.limit = min(sampler.limit, self._room(ids.shape[1]))
        text = AnswerText(self.model.tokenizer, stop)
        answer = Answer(sample["prompt"], listener)
        return Request(ids, sample["pixels"], sampler, text, answer, arguments, seed, scope)

    def _room(self, length: int) -> float:
        """How many tokens the language model can read behind a prompt of that length."""
        longest = getattr(self.engine.language.config, "max_position_embeddings", None) or inf
        if length >= longest:
            raise ValueError(f"a prompt of {length} tokens; the language model reads {longest}, its answer included")
        return longest - length

    def stats(self) -> dict[str, int]:
        """As `Engine.stats`."""
        return self.engine.stats()

    def close(self) -> None:
        """Cancel all answers under way, and wait until they have ended."""
        self.engine.close()

    def answer_all(self, conversations: Sequence[Conversation], generation: dict | None = None) -> list[str]:
        """The answers to the last questions of some conversations, as one batch; the conversations stay as they are.

        Unlike a stream it uses beams, where the model's generation arguments or `generation`, which override all
        others, ask for them.

        Raises:
            ValueError: a conversation is longer than the pipeline's token limit.
        """
        prompts = self.batch(conversations, self.pipeline, "left")
        arguments = {**self.generation, **(generation or {})}
        with self.engine.paused(), torch.inference_mode():
            ids = self.model.generate(**{key: prompts[key] for key in PROMPT}, **arguments)
        return self.flamingo.texts(ids, arguments)

    def settings_in_force(self) -> dict:
        """All that decides how the answers of `submit` are generated, where it is given nothing else."""
        return self.flamingo.settings_in_force({**self.generation, **STREAMED})

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

    def _pieces(self, conversation: Conversation, asked: Conversation, request: Request) -> Iterator[str]:
        self.engine.submit(request)
        said, answer = "", request.answer
        try:
            for piece in answer:
                said += piece.text
                yield piece.text
        except Exception:
            said = ""
            raise
        finally:
            answer.cancel()
            if answer.wait() and said.strip():
                asked.turns[-1]["answer"] = said.strip()
                conversation.turns, conversation.images = asked.turns, asked.images
