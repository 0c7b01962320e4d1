"""Chat with a tuned model: questions of text and images in, streamed answers out."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from peft import PeftModel
from PIL import Image

from mmgpt.apis.build import chat_config
from mmgpt.apis.conversation import Conversation, read_conversation
from mmgpt.apis.inputs import read_image
from mmgpt.apis.precision import build_for_serving
from mmgpt.compat.python_names import renamed_arguments, warn_renamed
from mmgpt.datasets import collate_conversations
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.datasets.prompts import check_ends
from mmgpt.datasets.transforms import FormatPrompt, PrepareImages, TokenizeSegments
from mmgpt.inference.answer import Answer
from mmgpt.inference.detokenizer import AnswerDetokenizer
from mmgpt.inference.predict import draw_seed
from mmgpt.inference.request import GenerationRequest
from mmgpt.inference.sampling import Sampler
from mmgpt.inference.scheduler import Scheduler
from mmgpt.models import flamingo_of
from mmgpt.models.generation import generation_arguments
from mmgpt.models.image_path import CLOSED_GATES, has_closed_gates
from mmgpt.models.perceiver import check_tiles

# Keys of a batch that are inputs of the model.
PROMPT = ("input_ids", "attention_mask", "pixels", "image_counts", "tile_ids")
STREAMED = {"num_beams": 1}  # A streamed answer has no beams, whatever the model's generation arguments are.


@renamed_arguments(engine="scheduler")
class Chat:
    """Answers questions about text and images; one model serves any number of conversations, from any threads.

    Args:
        model: a Flamingo, or a LoRAModel or peft's wrapper (see `load_adapters`) around one, in eval mode.
        pipeline: the transforms from a sample with ``pil`` images to ``input_ids`` and ``pixels``: the same ones
            that training uses, with the last answer open, so that a conversation is tokenized as in training. A prompt
            is shorter than the language model's positions; a lower `max_length` of TokenizeSegments is kept.
        generation: generation arguments that override the model's own, e.g. ``dict(max_new_tokens=64)``.
        scheduler: arguments of `Scheduler` besides the model (max_batch, max_waiting, cache_bytes).

    Attributes:
        adapters: names of the LoRA adapters that a question can choose among.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        pipeline: Sequence[Callable],
        generation: dict | None = None,
        scheduler: dict | None = None,
    ):
        self.model, self.flamingo = model, flamingo_of(model)
        self.adapters = tuple(model.peft_config) if isinstance(model, PeftModel) else ()
        # Prompt and answer share the language model's positions, and an answer has one token at least.
        self.max_positions = self.flamingo.language.max_positions or sys.maxsize
        self.pipeline = [
            step.limited(self.max_positions - 1) if isinstance(step, TokenizeSegments) else step for step in pipeline
        ]
        self.generation = {**self.flamingo.generation, **(generation or {})}
        self.scheduler = Scheduler(model, **(scheduler or {}))
        self.sees_images = not has_closed_gates(model)
        tokenizer = model.tokenizer
        for step in self.pipeline:
            if isinstance(step, PrepareImages):
                check_tiles(self.flamingo.perceiver, step.places)
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
        scheduler: dict | None = None,
        precision: str | None = None,
        merge: bool = True,
        trust: bool = False,
        engine: dict | None = None,
        adapters: Mapping[str, str | Path] | None = None,
    ) -> "Chat":
        """Build the model and the ``chat_pipeline`` that a config names.

        Args:
            config: a config file, one already loaded by ``load_config`` (then without ``options``), or a folder that
                ``export`` or ``merge`` wrote.
            checkpoint: what training wrote; without it the model is as before tuning.
            device: a torch device; by default the first GPU, or the CPU when there is none.
            options: values that override the config's, as ``--cfg-options`` does.
            generation, scheduler: see the class; `engine` is the earlier name of `scheduler`.
            precision, merge: as for ``build_for_serving``.
            trust: whether an exported folder may import classes from outside this package, or run a ``config.py``
                that holds more than plain settings.
            adapters: LoRA adapters by name, among which each question chooses, as folders of ``export`` or peft.
                A question without one is answered by the model without LoRA, also if the checkpoint has LoRA.

        Raises:
            FileNotFoundError: the config, the checkpoint, an adapter, or weights that the config names are missing.
            ValueError: the config has no ``chat_pipeline``, ``options`` are given with a loaded config, or
                ``build_for_serving`` raises it.
        """
        if engine is not None:
            warn_renamed("Chat.from_config(engine=...)", "scheduler=...")
            scheduler = engine
        cfg, checkpoint = chat_config(config, checkpoint, options, trust)
        model = build_for_serving(cfg, checkpoint, device, precision, merge, adapters)
        return cls(model, build_pipeline(cfg.chat_pipeline), generation, scheduler)

    def start(self, system: str = "") -> Conversation:
        """A new, empty conversation, with a system text if one is given."""
        return Conversation(system=system)

    def ask(
        self,
        conversation: Conversation,
        text: str,
        images: Sequence[str | Path | Image.Image] = (),
        generation: dict | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        adapter: str | None = None,
    ) -> str:
        """The whole answer to one question; arguments and errors are those of ``stream``."""
        return "".join(self.stream(conversation, text, images, generation, seed, stop, adapter))

    def stream(
        self,
        conversation: Conversation,
        text: str,
        images: Sequence[str | Path | Image.Image] = (),
        generation: dict | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        adapter: str | None = None,
    ) -> Iterator[str]:
        """Asks one question and yields its answer in pieces.

        The turn is added to the conversation when the answer ends, or when the consumer closes the iterator early, with
        the text so far. A turn without text, or with an error, leaves the conversation as it was.

        Args:
            conversation: the turns so far; changed as described.
            text: the question. All of it is literal: a typed ``<image>`` stays text.
            images: files or PIL images that belong to this question, shown before its text.
            generation, seed, stop, adapter: as for ``submit``.

        Raises:
            FileNotFoundError: an image file does not exist.
            ValueError: the question is empty, a file is not a readable image, or as for ``submit``.
        """
        if not text.strip():
            raise ValueError("the question is empty")
        extended = conversation.with_question(text, [read_image(image) for image in images])
        answer, answer_text = self.submit(extended, generation, seed=seed, stop=stop, adapter=adapter), ""
        try:
            for piece in answer:
                answer_text += piece.text
                yield piece.text
        finally:
            answer.cancel()
            # An answer that ended with an error has no finish reason.
            if answer.wait() and answer_text.strip():
                extended.turns[-1]["answer"] = answer_text.strip()
                conversation.turns, conversation.images = extended.turns, extended.images

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
        adapter: str | None = None,
    ) -> Answer:
        """Asks the last question of a conversation, which has no answer yet; the conversation stays as it is.

        Args:
            conversation: its images are RGB.
            generation: arguments of transformers' generate that override the chat's (max_new_tokens, do_sample,
                temperature, top_p, num_beams, ...). Beams are used only when `num_beams` is set here: such an answer
                comes as one piece.
            seed: of the random numbers of sampling; None: a different one each time.
            stop: texts that end the answer, and are left out of it.
            top_logprobs: number of most likely tokens that are reported at each position; None: no log-probabilities.
            listener: see `Answer`.
            scope: cached prefixes are shared among questions of one scope only, since the time to an answer would tell
                others whether its question was asked before.
            adapter: name of the LoRA adapter that answers, one of the chat's; None: the model without one.

        Raises:
            PromptTooLong: the conversation is longer than the language model's positions or the pipeline's limit.
            ValueError: it has another number of images than of image contents, or images that do not reach the model
                (its gates are closed); or an argument or the adapter is unknown or wrong.
            Busy: the waiting queue is full.
        """
        arguments = {**self.generation, **STREAMED, **(generation or {})}
        if top_logprobs is not None and (arguments["num_beams"] or 1) > 1:
            raise ValueError("log-probabilities need num_beams=1")
        request = self._request(conversation, arguments, seed, top_logprobs, listener, adapter)
        request.detokenizer, request.scope = AnswerDetokenizer(self.model.tokenizer, stop), scope
        self.scheduler.submit(request)
        return request.answer

    def _request(
        self,
        conversation: Conversation,
        settings: dict,
        seed: int | None,
        top_logprobs: int | None = None,
        listener: Callable | None = None,
        adapter: str | None = None,
    ) -> GenerationRequest:
        self.check_adapter(adapter)
        sample = self.read(conversation)
        ids = sample["input_ids"][None].to(next(self.model.parameters()).device)
        arguments = generation_arguments(self.model.tokenizer, settings, self.flamingo.language.ends)
        sampler = Sampler(self.flamingo.language, arguments, ids, seed, top_logprobs)
        sampler.max_new_tokens = min(sampler.max_new_tokens, self.max_positions - ids.shape[1])
        answer = Answer(sample["prompt"], listener)
        return GenerationRequest(
            ids, sample["pixels"], sampler, answer, tile_ids=sample.get("tile_ids"), adapter=adapter
        )

    def check_adapter(self, name: str | None) -> None:
        """Raises a ValueError with the choices unless there is an adapter of this name; None: no adapter."""
        if name is not None and name not in self.adapters:
            choices = ", ".join(map(repr, self.adapters)) or "none was loaded"
            raise ValueError(f"unknown adapter {name!r}; adapters: {choices}")

    def read(self, conversation: Conversation, pipeline: Sequence[Callable] | None = None) -> dict:
        """The sample of a conversation after a pipeline, by default the chat's; errors are those of `submit`."""
        if conversation.images and not self.sees_images:
            raise ValueError(CLOSED_GATES)
        return read_conversation(conversation, self.pipeline if pipeline is None else pipeline)

    def stats(self) -> dict[str, int]:
        """The figures of `Scheduler.stats`."""
        return self.scheduler.stats()

    def close(self) -> None:
        """Cancels all answers under way, and waits until they have ended."""
        self.scheduler.close()

    def answer_all(
        self, conversations: Sequence[Conversation], generation: dict | None = None, adapter: str | None = None
    ) -> list[str]:
        """The answers to the last questions of several conversations, which stay as they are.

        Unlike a stream this uses beams, where the model's generation arguments or `generation`, which override all
        others, ask for them.

        Raises:
            ValueError: see ``submit``.
        """
        arguments = {**self.generation, **(generation or {})}
        requests = [
            self._request(conversation, arguments, draw_seed(arguments), adapter=adapter)
            for conversation in conversations
        ]
        self.scheduler.submit(*requests, bounded=False)
        try:
            return [request.text(self.model.tokenizer) for request in requests]
        finally:
            for request in requests:
                request.answer.cancel()

    def settings_in_force(self) -> dict:
        """The settings of an answer when `submit` gets no generation arguments."""
        return self.flamingo.settings_in_force({**self.generation, **STREAMED})

    def prepare(self, conversation: Conversation) -> dict:
        """Model inputs of a conversation whose last turn has no answer yet.

        Returns: ``input_ids`` and ``attention_mask`` (1, L), ``pixels`` (1, T, 3, H, W) or None without an image,
        ``image_counts`` (1,), and ``tile_ids`` (1, T, F) or None, on the model's device.
        """
        batch = self.batch([conversation], self.pipeline, "left")
        return {key: batch[key] for key in PROMPT}

    def batch(self, conversations: Sequence[Conversation], pipeline: Sequence[Callable], padding_side: str) -> dict:
        """The batch of `collate_conversations`, on the model's device, of conversations after a pipeline."""
        samples = [self.read(conversation, pipeline) for conversation in conversations]
        batch = collate_conversations(samples, self.model.tokenizer.pad_token_id, padding_side)
        device = next(self.model.parameters()).device
        return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
