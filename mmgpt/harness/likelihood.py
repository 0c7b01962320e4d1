"""How likely a model finds given answers."""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from mmgpt.apis import Chat, Conversation
from mmgpt.apis.chat import PROMPT
from mmgpt.datasets.transforms import FormatPrompt
from mmgpt.datasets.transforms.tokens import IGNORE_INDEX


def answer_losses(chat: Chat, conversations: Sequence[Conversation]) -> list[tuple[float, bool]]:
    """For the last answer of each conversation its loss, and whether greedy decoding gives exactly this answer.

    The loss is the mean negative log-likelihood of the answer's tokens, the end of the sequence among them: what
    training learns.

    Raises:
        ValueError: an answer is empty, or does not fit into the pipeline's token limit.
    """
    if not all(conversation.turns[-1].get("answer") for conversation in conversations):
        raise ValueError("an answer is empty")
    batch = chat.batch(conversations, [*map(_closed, chat.pipeline), _check_whole], "right")
    with torch.inference_mode():
        logits = chat.model(**{key: batch[key] for key in PROMPT}, mode="tensor")
        targets = batch["labels"][:, 1:]
        learned = targets != IGNORE_INDEX
        logits, tokens = logits[:, :-1][learned].float(), targets[learned]
        losses, likeliest = cross_entropy(logits, tokens, reduction="none"), logits.argmax(dim=-1)
        ends = tokens.new_tensor(chat.flamingo.ends(chat.generation))
        # Whichever token ends an answer, it is the same answer.
        hits = (likeliest == tokens) | (torch.isin(likeliest, ends) & torch.isin(tokens, ends))
    lengths = learned.sum(dim=1).tolist()
    rows = zip(losses.split(lengths), hits.split(lengths), strict=True)
    return [(loss.mean().item(), hit.all().item()) for loss, hit in rows]


def _closed(step):
    """A transform of a chat, with the last answer and its end in the prompt."""
    return FormatPrompt(step.template) if isinstance(step, FormatPrompt) else step


def _check_whole(sample: dict | None) -> dict:
    if sample is None or "cut" in sample:
        raise ValueError("an answer with its prompt is longer than max_length of the chat_pipeline")
    return sample
