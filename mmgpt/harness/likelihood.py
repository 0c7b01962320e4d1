"""Losses of answers to conversations, for evaluation harnesses."""

from collections.abc import Sequence

import torch

from mmgpt.apis import Chat, Conversation
from mmgpt.datasets.transforms import FormatPrompt
from mmgpt.inference.scoring import Candidate, Prompts, answer_logprobs
from mmgpt.models.loss import IGNORE_INDEX


def answer_losses(chat: Chat, conversations: Sequence[Conversation]) -> list[tuple[float, bool]]:
    """For the last answer of each conversation its loss, and whether greedy decoding gives exactly this answer.

    The loss is the mean negative log-likelihood of the answer's tokens and of the end of the sequence, as in training.

    Raises:
        ValueError: an answer is empty, or does not fit into the chat's token limit.
    """
    if not all(conversation.turns[-1].get("answer") for conversation in conversations):
        raise ValueError("an answer is empty")
    # The chat's own transforms, with the last answer and its end after the prompt.
    closed = [
        step.with_template(step.template, step.system, open_last=False) if isinstance(step, FormatPrompt) else step
        for step in chat.pipeline
    ]
    batch = chat.batch(conversations, [*closed, _as_candidate], "left")
    pixels, counts = batch["pixels"], batch["image_counts"]
    with torch.inference_mode():
        features = None
        if pixels is not None:
            features = chat.flamingo.encode_images(pixels, counts, tile_ids=batch["tile_ids"])
        prompts = Prompts(batch["input_ids"], batch["attention_mask"], features, counts)
        candidates = [[Candidate(**candidate) for candidate in row] for row in batch["candidates"]]
        answers = [answer for (answer,) in answer_logprobs(chat.flamingo.language, prompts, candidates)]
    ends = torch.tensor(chat.flamingo.ends(chat.generation))
    results = []
    for tokens, logprobs, greedy, total in answers:
        # All end tokens count as equal: the answers before them are the same.
        hits = (greedy == tokens) | (torch.isin(greedy, ends) & torch.isin(tokens, ends))
        results.append((-total / len(logprobs), hits.all().item()))
    return results


def _as_candidate(sample: dict | None) -> dict:
    """A sample with its last answer as the candidate after its prompt (see `AddCandidates`)."""
    if sample is None or "cut" in sample:
        raise ValueError(
            "an answer with its prompt is longer than the chat takes: the language model's positions, or a "
            "max_length of the chat_pipeline"
        )
    ids, labels = sample["input_ids"], sample["labels"]
    # A chat template may write more after the token that ends an answer.
    end = int((labels != IGNORE_INDEX).nonzero()[-1]) + 1
    start = int((labels[:end] == IGNORE_INDEX).nonzero()[-1]) + 1
    candidate = {"ids": ids[start:end], "labels": labels[start:end]}
    return {**sample, "input_ids": ids[:start], "labels": labels[:start], "candidates": [candidate]}
