"""mmgpt as a model of lmms-eval, as version 0.7.3 calls it.

Read there: lmms_eval/api/model.py (the interface), api/task.py (what requests hold, what becomes of the answers),
evaluator.py, models/simple/llava.py. Only lmms-eval imports this module (see `lmms_eval_plugin`).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from tqdm import tqdm

from mmgpt.apis import Chat, Conversation, read_picture
from mmgpt.datasets.conversation import count_images
from mmgpt.datasets.parsers.dialogue import MARK, marked_question
from mmgpt.harness.likelihood import answer_losses

SAMPLING = ("temperature", "top_p")
DECODING = ("max_new_tokens", "num_beams")


class MMGPT(lmms):
    """Answers requests by the config's own chat pipeline: template, tokens and images are those of a chat.

    Args:
        pretrained: a config file, or a folder that `export` or `merge` wrote.
        checkpoint: what training wrote, for a config file.
        batch_size: requests answered at once.
        device: a torch device; by default the first GPU, or the CPU. Of several processes each takes its own GPU.
        trust: as for `Chat.from_config`.
        options: values over the config's, as `--cfg-options` takes them. lmms-eval passes all of `--model_args` as
            keyword arguments.

    Raises:
        ValueError: `batch_size` is no number above 0; otherwise as `Chat.from_config`.
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
            raise ValueError(f"batch_size={batch_size!r}: a number above 0 is needed (there is no 'auto')")
        self.batch_size = int(batch_size)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if self._world_size > 1:
            device = str(self.accelerator.device)
        self.chat = Chat.from_config(pretrained, checkpoint, device, options, trust=trust)
        self.device = next(self.chat.model.parameters()).device

    def generate_until(self, requests: Sequence) -> list[str]:
        """Answers in the order of the requests, each cut before the first of its `until` texts.

        `args` of a request: context, generation arguments, a function from a document to its images, number of the
        document, task, split.
        """

        def answer(batch: Sequence[tuple]) -> list[str]:
            conversations = [self._conversation(context, *of) for context, _, *of in batch]
            arguments = batch[0][1]
            texts = self.chat.answer_all(conversations, decoding(arguments))
            return [cut(text, arguments.get("until")) for text in texts]

        return self._batched(requests, answer, settings=lambda arguments: repr(arguments[1]))

    def loglikelihood(self, requests: Sequence) -> list[GenerationResult]:
        """For each request the *loss* of its continuation as an answer, and whether the model would answer just so.

        lmms-eval's docstring asks for a log-likelihood, but its models give the mean loss, and its multiple choice
        takes the smallest (`process_results` of api/task.py). See `answer_losses`. The pair comes as a
        GenerationResult, since a bare one is turned into text (`unwrap_generation_output` of api/instance.py).

        `args` of a request: as for generate_until, but second the continuation, or a function from a document to it.
        """

        def score(batch: Sequence[tuple]) -> list[GenerationResult]:
            conversations = []
            for context, continuation, *of in batch:
                answer = continuation(self._document(*of[1:])) if callable(continuation) else continuation
                conversation = self._conversation(context, *of)
                conversation.turns[-1]["answer"] = answer.strip()
                conversations.append(conversation)
            return [GenerationResult(pair) for pair in answer_losses(self.chat, conversations)]

        return self._batched(requests, score, settings=lambda arguments: "")

    def generate_until_multi_round(self, requests: Sequence) -> list[str]:
        """Not there, as in most of lmms-eval's models: two of its tasks need it."""
        raise NotImplementedError("mmgpt does not answer tasks of several rounds (generate_until_multi_round)")

    def clean(self) -> None:
        """Free the model's memory; lmms-eval does it before a local judge is loaded."""
        del self.chat
        super().clean()

    def _batched(self, requests: Sequence, work: Callable, settings: Callable[[tuple], str]) -> list:
        """What `work` gives for each request, of batches with equal settings."""
        arguments = [request.args for request in requests]
        results = [None] * len(arguments)
        with tqdm(total=len(arguments), desc="mmgpt", disable=self.rank > 0) as bar:
            for numbers in batches(arguments, settings, self.batch_size):
                answers = _named([arguments[i] for i in numbers], work)
                for i, answer in zip(numbers, answers, strict=True):
                    results[i] = answer
                bar.update(len(numbers))
        return results

    def _document(self, number: int, task: str, split: str) -> dict:
        return self.task_dict[task][split][number]

    def _conversation(self, context: str, images_of: Callable, *document) -> Conversation:
        images = images_of(self._document(*document)) or []
        return asked(context, [read_picture(image) for image in images])


def batches(arguments: Sequence[tuple], settings: Callable[[tuple], str], size: int) -> Iterator[list[int]]:
    """Numbers of requests that are answered at once: of equal settings, those with long contexts first."""
    keys = [settings(of) for of in arguments]
    order = sorted(range(len(arguments)), key=lambda i: (keys[i], -len(arguments[i][0])))
    for _, group in groupby(order, key=keys.__getitem__):
        numbers = list(group)
        yield from (numbers[start : start + size] for start in range(0, len(numbers), size))


def asked(context: str, images: Sequence) -> Conversation:
    """A context with its images: at its `<image>` marks, or, where these are not as many, before the text.

    Some tasks mark one image at several places (MMMU): then no mark is kept.
    """
    question = marked_question(context.strip())
    if count_images([{"question": question}]) != len(images):
        question = context.replace(MARK, "").strip()
    return Conversation([{"question": question}], list(images))


def decoding(arguments: dict) -> dict:
    """transformers' generation arguments from a task's; what only other models understand is left out."""
    known = {key: arguments[key] for key in DECODING if arguments.get(key) is not None}
    temperature = arguments.get("temperature")
    sample = arguments.get("do_sample", bool(temperature)) and temperature != 0
    if not sample:
        return {**known, "do_sample": False}
    return {**known, "do_sample": True, **{key: arguments[key] for key in SAMPLING if arguments.get(key) is not None}}


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """A text up to the first of some stop texts."""
    for stop in [until] if isinstance(until, str) else until or []:
        text = text.split(stop)[0] if stop else text
    return text.strip()


def _named(batch: Sequence[tuple], work: Callable) -> list:
    try:
        return work(batch)
    except FileNotFoundError:
        raise  # a missing image, which is a ValueError too
    except ValueError as error:
        *_, task, split = batch[0]
        documents = [arguments[-3] for arguments in batch]
        raise ValueError(f"task {task!r}, split {split!r}, one of the documents {documents}: {error}") from error
