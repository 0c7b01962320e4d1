"""Adapter that makes a chat a model of lmms-eval 0.7.3.

Sources: lmms_eval/api/model.py (the interface), api/task.py (the content of requests, the use of answers),
evaluator.py, models/simple/llava.py. Only lmms-eval imports this module (see `lmms_eval_plugin`).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from tqdm import tqdm

from mmgpt.apis import Chat, Conversation, read_image
from mmgpt.datasets.conversation import count_images
from mmgpt.datasets.parsers.dialogue import MARK, marked_question
from mmgpt.harness.likelihood import answer_losses

SAMPLING = ("temperature", "top_p")
DECODING = ("max_new_tokens", "num_beams")


class MMGPT(lmms):
    """Model of lmms-eval that answers requests with the chat pipeline of a config.

    Args:
        pretrained: a config file, or a folder that `export` or `merge` wrote.
        checkpoint: checkpoint of a training, for a config file.
        batch_size: number of requests that are answered at once.
        device: a torch device; by default the first GPU, or the CPU. Each of several processes takes its own GPU.
        trust: see `Chat.from_config`.
        options: config values to override, as for `--cfg-options`. lmms-eval passes all of `--model_args` as keyword
            arguments, so that their names cannot be listed here.

    Raises:
        ValueError: `batch_size` is not a positive integer; see also `Chat.from_config`.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        checkpoint: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        trust: bool = False,
        **options,
    ):
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size={batch_size!r} must be a positive integer ('auto' is not supported)")
        self.batch_size = int(batch_size)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self._world_size > 1:
            device = str(self.accelerator.device)
        self.chat = Chat.from_config(pretrained, checkpoint, device, options, trust=trust)
        self.device = next(self.chat.model.parameters()).device

    def generate_until(self, requests: Sequence) -> list[str]:
        """Answers in the order of the requests, each cut before the first of its stop texts `until`.

        The `args` of a request: context, generation arguments, a function from a document to its images, number of the
        document, task, split.
        """

        def answer(batch: Sequence[tuple]) -> list[str]:
            conversations = [self._conversation(context, *document) for context, _, *document in batch]
            arguments = batch[0][1]
            texts = self.chat.answer_all(conversations, generation_arguments(arguments))
            return [cut(text, arguments.get("until")) for text in texts]

        return self._batched(requests, answer, settings=lambda args: repr(args[1]))

    def loglikelihood(self, requests: Sequence) -> list[GenerationResult]:
        """The *loss* of each request's continuation as an answer, and whether greedy decoding gives this answer.

        lmms-eval's docstring asks for a log-likelihood, but its models return the mean loss, and its multiple choice
        takes the smallest (`process_results` of api/task.py). See `answer_losses`. The pair is wrapped in a
        GenerationResult, since a bare pair would be turned into text (`unwrap_generation_output` of api/instance.py).

        The `args` of a request are those of `generate_until`, except that the second one is the continuation, or a
        function from a document to the continuation.
        """

        def score(batch: Sequence[tuple]) -> list[GenerationResult]:
            conversations = []
            for context, continuation, *document in batch:
                answer = continuation(self._document(*document[1:])) if callable(continuation) else continuation
                conversation = self._conversation(context, *document)
                conversation.turns[-1]["answer"] = answer.strip()
                conversations.append(conversation)
            return [GenerationResult(pair) for pair in answer_losses(self.chat, conversations)]

        return self._batched(requests, score, settings=lambda args: "")

    def generate_until_multi_round(self, requests: Sequence) -> list[str]:
        """Unsupported, as in most of lmms-eval's models; two of its tasks need it."""
        raise NotImplementedError("mmgpt does not answer tasks of several rounds (generate_until_multi_round)")

    def clean(self) -> None:
        """Free the model's memory. lmms-eval calls this before it loads a local judge."""
        del self.chat
        super().clean()

    def _batched(self, requests: Sequence, answer: Callable, settings: Callable[[tuple], str]) -> list:
        """The answers to all requests, which are computed in batches of requests with equal settings."""
        args = [request.args for request in requests]
        results = [None] * len(args)
        with tqdm(total=len(args), desc="mmgpt", disable=self.rank > 0) as bar:
            for indices in batches(args, settings, self.batch_size):
                batch = [args[i] for i in indices]
                try:
                    answers = answer(batch)
                except FileNotFoundError:
                    raise  # A missing image raises a class that is also a ValueError.
                except ValueError as error:
                    *_, task, split = batch[0]
                    documents = [request[-3] for request in batch]
                    raise ValueError(
                        f"task {task!r}, split {split!r}, one of the documents {documents}: {error}"
                    ) from error
                for i, result in zip(indices, answers, strict=True):
                    results[i] = result
                bar.update(len(indices))
        return results

    def _document(self, number: int, task: str, split: str) -> dict:
        return self.task_dict[task][split][number]

    def _conversation(self, context: str, images_of: Callable, *document) -> Conversation:
        images = images_of(self._document(*document)) or []
        return conversation_of(context, [read_image(image) for image in images])


def batches(args: Sequence[tuple], settings: Callable[[tuple], str], size: int) -> Iterator[list[int]]:
    """Indices of the requests of each batch: requests of equal settings, those with long contexts first."""
    keys = [settings(request) for request in args]
    order = sorted(range(len(args)), key=lambda i: (keys[i], -len(args[i][0])))
    for _, group in groupby(order, key=keys.__getitem__):
        indices = list(group)
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def conversation_of(context: str, images: Sequence) -> Conversation:
    """A question with its images at its `<image>` marks, or before the text if marks and images differ in number.

    Where a task marks one image several times (MMMU), all marks are removed.
    """
    question = marked_question(context.strip())
    if count_images([{"question": question}]) != len(images):
        question = context.replace(MARK, "").strip()
    return Conversation([{"question": question}], list(images))


def generation_arguments(arguments: dict) -> dict:
    """The generation arguments of a task that transformers knows; those for other models are left out."""
    decoding = {key: arguments[key] for key in DECODING if arguments.get(key) is not None}
    temperature = arguments.get("temperature")
    sample = arguments.get("do_sample", bool(temperature)) and temperature != 0
    if not sample:
        return {**decoding, "do_sample": False}
    sampling = {key: arguments[key] for key in SAMPLING if arguments.get(key) is not None}
    return {**decoding, "do_sample": True, **sampling}


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """A text up to the first stop text in it."""
    for stop in [until] if isinstance(until, str) else until or []:
        text = text.split(stop)[0] if stop else text
    return text.strip()
